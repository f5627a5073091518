"""Protection of the machine: reachable ports, private files, and confinement of untrusted processes."""
