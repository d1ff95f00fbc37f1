"""The Llama 3 model: blocks, attention inside documents, loss, layout-independent init."""
