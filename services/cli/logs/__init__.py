"""The log files of `cortex up`: bounded, and read again."""
