"""
Speed, as ratios against a peer in the same run: `make bench`.

::

    __main__     what is asked for → rows, printed and written down
    bench        where the measuring is done: images, a Nix store, registries to start
    images       archives, made of this machine's own programs
    peers        nginx and docker-registry
    clients      curl, skopeo, wrk and those who only wait
    timing       seconds, taken in turns
    table        pure: rows, marks, ratios, the page
    pictures     pure: the page's pictures
    machine      what it was measured on
    rows/        what is measured, a module for each kind
    notes.toml   what was tried and what the next limit is, kept by hand
"""
