"""scripts/audit-rows: a large audit log, and how long the questions to it take."""
