"""Mathematics of diffusion and flow models, without networks: processes, parameterizations, guidance, samplers."""
