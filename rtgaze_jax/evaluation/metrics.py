"""Image metrics with the definitions of the published protocols (piq's PSNR and SSIM, the Frechet distance)."""
