"""What people see: lines, colours, tables and progress."""
