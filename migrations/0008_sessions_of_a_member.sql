-- Ending all of a member's tokens ends its sessions, too, through both doors; the admin's could not tell whose they are.
GRANT SELECT (user_id) ON sessions TO gatehouse_admin;
