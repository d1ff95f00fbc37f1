"""Quality: labels asked of a Llama, and the server that answers where there is none."""
