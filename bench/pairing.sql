-- One pairing for pgbench: what services/pairings.py sends to make a code and to redeem it, two transactions.
-- Keep it in step with store/pairings.py, store/attempts.py, store/users.py and store/audit.py.
\set user random(1, :users)
\set device random(1, 1000000000000)
BEGIN;
SELECT id, username, role, created_at, disabled_at FROM users WHERE id = lpad(to_hex(:user::bigint), 32, '0')::uuid;
INSERT INTO attempts (kind, key, times, touched_at)
VALUES ('code_address', '10.0.0.' || :user::bigint, '{}', now()), ('code_user', 'pgbench-' || :user::bigint, '{}', now())
ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at RETURNING kind, key, times, level, locked_until;
SELECT count(*) FROM pairings
WHERE desktop_user = 'pgbench-' || :user::bigint AND ended_at IS NULL AND state = 'pending'
  AND desktop_session <> 'desktop-' || :device::bigint AND expires_at > now();
UPDATE attempts SET times = ARRAY[now()], level = 0, locked_until = NULL
WHERE kind = 'code_address' AND key = '10.0.0.' || :user::bigint;
UPDATE attempts SET times = ARRAY[now()], level = 0, locked_until = NULL
WHERE kind = 'code_user' AND key = 'pgbench-' || :user::bigint;
INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
VALUES ('desktop-' || :device::bigint, 'pgbench-' || :user::bigint, 'desktop', now(), now())
ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at RETURNING subject, bound_at = now();
INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, node, app_version, actor_subject, actor_kind, attrs)
VALUES (now(), gen_random_uuid(), 'session.bound', 6, 'success', 'node', '1', 'pgbench', 'user', '{"device_type": "desktop"}')
RETURNING recorded_at, seq;
UPDATE pairings SET state = 'superseded', ended_at = now(), end_reason = 'superseded'
WHERE desktop_session = 'desktop-' || :device::bigint AND desktop_user IS NOT DISTINCT FROM 'pgbench-' || :user::bigint
  AND ended_at IS NULL AND state = 'pending' RETURNING id;
INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, created_at, expires_at)
SELECT gen_random_uuid(), drawn.mac, 'pending', 'desktop-' || :device::bigint, 'pgbench-' || :user::bigint, now(),
       now() + interval '5 minutes'
FROM (SELECT sha256(int8send(:device::bigint + place)) AS mac, place FROM generate_series(0, 7) AS place) AS drawn
WHERE drawn.place <> ALL (
    SELECT known.place
    FROM (SELECT sha256(int8send(:device::bigint + place)) AS mac, place FROM generate_series(0, 7) AS place) AS known
    JOIN pairings ON pairings.code_mac = known.mac)
ORDER BY drawn.place LIMIT 1
ON CONFLICT (code_mac) DO NOTHING RETURNING code_mac;
INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, node, app_version, actor_subject, actor_kind, attrs)
VALUES (now(), gen_random_uuid(), 'pairing.code_created', 6, 'success', 'node', '1', 'pgbench', 'user', '{"expires_at": "soon"}')
RETURNING recorded_at, seq;
COMMIT;
BEGIN;
SELECT id, username, role, created_at, disabled_at FROM users WHERE id = lpad(to_hex(:user::bigint), 32, '0')::uuid;
INSERT INTO attempts (kind, key, times, touched_at)
VALUES ('redeem_address', '10.0.0.' || :user::bigint, '{}', now()), ('redeem_user', 'pgbench-' || :user::bigint, '{}', now())
ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at RETURNING kind, key, times, level, locked_until;
INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
VALUES ('mobile-' || :device::bigint, 'pgbench-' || :user::bigint, 'mobile', now(), now())
ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at RETURNING subject, bound_at = now();
INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, node, app_version, actor_subject, actor_kind, attrs)
VALUES (now(), gen_random_uuid(), 'session.bound', 6, 'success', 'node', '1', 'pgbench', 'user', '{"device_type": "mobile"}')
RETURNING recorded_at, seq;
UPDATE pairings SET state = CASE WHEN state = 'pending' THEN 'redeemed' ELSE state END,
    mobile_session = 'mobile-' || :device::bigint, mobile_user = 'pgbench-' || :user::bigint,
    redeemed_at = coalesce(redeemed_at, now())
WHERE code_mac = sha256(int8send(:device::bigint)) AND state = 'pending' AND expires_at > now()
  AND desktop_user = 'pgbench-' || :user::bigint RETURNING id, state, desktop_session, desktop_user, created_at, expires_at;
UPDATE pairings SET state = 'superseded', ended_at = now(), end_reason = 'superseded'
WHERE desktop_session = 'desktop-' || :device::bigint AND desktop_user IS NOT DISTINCT FROM 'pgbench-' || :user::bigint
  AND ended_at IS NULL AND state IN ('redeemed', 'active', 'waiting') AND code_mac <> sha256(int8send(:device::bigint))
RETURNING id;
INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, node, app_version, actor_subject, actor_kind, attrs)
VALUES (now(), gen_random_uuid(), 'pairing.redeem', 6, 'success', 'node', '1', 'pgbench', 'user', '{"ms_since_created": 1}')
RETURNING recorded_at, seq;
COMMIT;
