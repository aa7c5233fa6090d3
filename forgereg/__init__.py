"""
An OCI registry with nothing in it: Nix builds what is pulled.

A request comes in at `forgereg.web`, which speaks HTTP and decides nothing.
`forgereg.flow` tells what happens then: a tag becomes a locked flake ref, a derivation,
an archive (`forgereg.nix`), an image and its layers (`forgereg.archive`,
`forgereg.blobs`), and all of it is remembered (`forgereg.records`). `forgereg.oci` has
the specifications' words. `forgereg.parts` makes all of that, with the settings of
`forgereg.config`, and `forgereg.assembly` has it begin and end; `forgereg.tap` runs it
under twistd, and `forgereg.cli` speaks to one that runs.

Begin to read at `forgereg/flow/registry.py`; `docs/flow.md` tells one pull.
"""
