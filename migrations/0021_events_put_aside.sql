-- An event that cannot be read is put aside, and what is behind it of the same aggregate waits with it; all others go on.
-- And a publisher says how long it may be sending: its transactions no longer last until Kafka has answered, so that the
-- next leader could otherwise overtake it.
--
-- Expand: the build before this one takes nothing aside and holds its rows while it sends.

ALTER TABLE event_outbox
    ADD COLUMN IF NOT EXISTS parked_at timestamptz,
    ADD COLUMN IF NOT EXISTS parked_reason text;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'event_outbox_parked' AND conrelid = 'event_outbox'::regclass) THEN
        ALTER TABLE event_outbox ADD CONSTRAINT event_outbox_parked
            CHECK (num_nonnulls(parked_at, parked_reason) IN (0, 2) AND length(parked_reason) BETWEEN 1 AND 100);
    END IF;
END
$$;
CREATE INDEX IF NOT EXISTS event_outbox_parked ON event_outbox (tenant_id, aggregate_kind, aggregate_id)
    WHERE parked_at IS NOT NULL;
GRANT UPDATE (parked_at, parked_reason) ON event_outbox TO gatehouse_system;
-- Who tells, and who erases, puts nothing aside.
DROP POLICY IF EXISTS job_parks ON event_outbox;
CREATE POLICY job_parks ON event_outbox AS RESTRICTIVE FOR UPDATE TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'publisher')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'publisher');

-- The publishers, one after another: what the one of this epoch may still be sending.
CREATE TABLE IF NOT EXISTS event_publisher (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    busy_until timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO event_publisher DEFAULT VALUES ON CONFLICT DO NOTHING;
ALTER TABLE event_publisher ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS job_publisher ON event_publisher;
CREATE POLICY job_publisher ON event_publisher TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'publisher')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'publisher');
GRANT SELECT, UPDATE (epoch, busy_until) ON event_publisher TO gatehouse_system;
