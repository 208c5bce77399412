"""Limits shared between gateways, and usage by principal."""
