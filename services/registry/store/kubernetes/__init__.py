"""The store of several registries without a database: a Lease, ConfigMaps and Secrets."""
