"""DECIDE: Config and fingerprint become a Plan; also the events that everything later tells about itself. No torch."""
