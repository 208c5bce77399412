"""What files on this disk are: GGUF and safetensors headers, labels, fingerprints."""
