"""Content-addressed files: layers and configs, unpacked once."""
