"""TorchServe's archives, served unchanged: what backend `torchserve` is made of.

    archive, extract, scratch    from a file to a folder: formats, limits, private temporary folders
    manifest, config             what an archive says of itself
    modules, entry               its Python files, apart from everybody else's; its handler's entry point
    data, service                requests to a handler's data and back; one loaded archive
    ts                           the modules that handlers import as `ts.*`

Nothing here is copied from TorchServe: it was written from a description of how that behaves.
"""
