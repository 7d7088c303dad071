"""Brain atlases as data. Read with :func:`normfuse.load_atlas`; this folder holds no code."""
