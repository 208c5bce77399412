"""Keys of clients and their groups: kept in the store, told to gateways."""
