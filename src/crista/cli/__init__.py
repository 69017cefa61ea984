"""The command line: a thin shell over `crista.workflow`."""
