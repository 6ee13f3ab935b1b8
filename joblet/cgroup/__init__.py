"""cgroups: one interface, two hierarchies. What is asked is planned as data; what is so is read back here and only here."""
