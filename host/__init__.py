"""The host: runs a diffusers sampler with a card serving every denoising step."""
