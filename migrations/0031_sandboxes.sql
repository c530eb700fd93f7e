-- Which sandbox runs an attempt: with warm starts its name does not follow from the execution's.
--
-- Expand: the build before this one leaves it as it is; what it claims keeps the name that an earlier attempt had, and
-- nobody but people reads it.

-- Written with the lease, in the claim's transaction: what runs is found by it on the worker's machine.
ALTER TABLE executions ADD COLUMN IF NOT EXISTS sandbox text CHECK (length(sandbox) = 45);
GRANT UPDATE (sandbox) ON executions TO gatehouse_app;
