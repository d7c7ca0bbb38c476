"""Container runtimes that pull through dragonet: what is written to their files, and how it is taken back.

``names`` (which runtime, registries, gateway); planners that read and decide (``containerd`` with ``locating``,
``mirrors`` for podman and CRI-O, ``docker``) and their pure editors (``hosts``, ``settings``, ``toml_text``);
``journal`` (what was there before) and ``before`` (files as they were then); ``configuring``, ``restoring`` and
``watching`` on a ``machine``; ``tree`` reads, and ``disk`` is the only module that writes.
"""
