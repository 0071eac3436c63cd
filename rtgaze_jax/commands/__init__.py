"""One module per subcommand of `rtgaze`; see rtgaze_jax/cli.py."""
