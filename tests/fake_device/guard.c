/* Preloaded into a process that computes with tensors on a CUDA device that is not there (fake_cuda.py).
 *
 * torch's autograd asks these two functions of libtorch_cpu whether the device of a tensor has streams to wait for. They are
 * called through the procedure linkage table, so that the first definition in the process is taken: these. No device has. */

/* bool at::accelerator::isAccelerator(c10::DeviceType) */
unsigned char _ZN2at11accelerator13isAcceleratorEN3c1010DeviceTypeE(signed char type) { (void)type; return 0; }

/* std::optional<c10::DeviceType> at::accelerator::getAccelerator(bool): a byte, and a byte that says whether there is one */
unsigned short _ZN2at11accelerator14getAcceleratorEb(unsigned char checked) { (void)checked; return 0; }
