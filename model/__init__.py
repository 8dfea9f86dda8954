"""The networks: video VAE, text encoders, diffusion transformer, sampler. Needs torch and nothing of ours."""
