"""Container runtimes that pull through dragonet: what is written to their files, and how it is taken back.

``names`` (which registries, which gateway), one planner per runtime (``containerd``, ``registries`` for podman and
CRI-O, ``docker``) with its pure editor beside it (``hosts``, ``settings``, ``mirrors``), ``journal`` (what was
there before), ``configuring`` and ``restoring``, and ``disk`` (the only module that writes).
"""
