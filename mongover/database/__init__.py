"""The server: connection, capabilities, errors of the driver, transactions, the embedded one."""
