"""Recipe that reproduces the bundled ``shapes-ldm`` latent diffusion model from nothing."""
