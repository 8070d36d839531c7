"""The generator: a diffusers U-Net in, an accelerator (sources, program, weights) out."""
