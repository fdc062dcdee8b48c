SELECT count(*) AS count_1 
FROM pairings 
WHERE pairings.ended_at IS NULL
;;
INSERT INTO attempts (kind, key, times, touched_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::TIMESTAMP WITH TIME ZONE[], $4::TIMESTAMP WITH TIME ZONE) ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at RETURNING attempts.kind, attempts.key, attempts.times, attempts.level, attempts.locked_until
-- with 'register_address', '127.0.0.1', '{}', '2026-11-25 19:41:42.223619+00'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:42.223619+00"}', '0', NULL, 'register_address', '127.0.0.1'
;;
INSERT INTO users (id, username, username_key, password_hash, role, created_at) VALUES ($1::UUID, $2::VARCHAR, $3::VARCHAR, $4::VARCHAR, $5::VARCHAR, $6::TIMESTAMP WITH TIME ZONE) ON CONFLICT (username_key) DO NOTHING RETURNING users.id, users.username, users.role, users.created_at, users.disabled_at
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'a1a1a1a1-alice', 'a1a1a1a1-alice', '$argon2id$none', 'user', '2026-11-25 19:41:42.223619+00'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"role": "user", "target": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f"}, "count": 1, "event": "account.created", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-5573-49f0-a575-9ccbff615b86", "severity": 5, "actor_kind": "anonymous", "pairing_id": null, "request_id": "a1a1a1a1-2ccb-4462-8674-1a28b479d340", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:42.223619+00:00", "actor_subject": null, "connection_id": null}]'
;;
INSERT INTO attempts (kind, key, times, touched_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::TIMESTAMP WITH TIME ZONE[], $4::TIMESTAMP WITH TIME ZONE) ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at RETURNING attempts.kind, attempts.key, attempts.times, attempts.level, attempts.locked_until
-- with 'register_address', '127.0.0.1', '{}', '2026-11-25 19:41:42.344462+00'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:42.223619+00","2026-11-25 19:41:42.344462+00"}', '0', NULL, 'register_address', '127.0.0.1'
;;
INSERT INTO users (id, username, username_key, password_hash, role, created_at) VALUES ($1::UUID, $2::VARCHAR, $3::VARCHAR, $4::VARCHAR, $5::VARCHAR, $6::TIMESTAMP WITH TIME ZONE) ON CONFLICT (username_key) DO NOTHING RETURNING users.id, users.username, users.role, users.created_at, users.disabled_at
-- with 'a1a1a1a1-ad72-46e8-9e53-73e4170e9e09', 'a1a1a1a1-alice', 'a1a1a1a1-alice', '$argon2id$none', 'user', '2026-11-25 19:41:42.344462+00'
;;
INSERT INTO attempts (kind, key, times, touched_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::TIMESTAMP WITH TIME ZONE[], $4::TIMESTAMP WITH TIME ZONE), ($5::VARCHAR, $6::VARCHAR, $7::TIMESTAMP WITH TIME ZONE[], $8::TIMESTAMP WITH TIME ZONE) ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at RETURNING attempts.kind, attempts.key, attempts.times, attempts.level, attempts.locked_until
-- with 'login_address', '127.0.0.1', '{}', '2026-11-25 19:41:42.452157+00', 'login_user', 'a1a1a1a1-alice', '{}', '2026-11-25 19:41:42.452157+00'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:42.452157+00"}', '0', NULL, 'login_user', 'a1a1a1a1-alice'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:42.452157+00"}', '0', NULL, 'login_address', '127.0.0.1'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at, users.password_hash 
FROM users 
WHERE users.username_key = $1::VARCHAR
-- with 'a1a1a1a1-alice'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"target": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f"}, "count": 1, "event": "auth.login", "reason": "password", "address": "127.0.0.1", "outcome": "failure", "event_id": "a1a1a1a1-19f4-4204-95ec-5bedd4d226b7", "severity": 4, "actor_kind": "anonymous", "pairing_id": null, "request_id": "a1a1a1a1-6ebb-4e36-96a7-ca649f880fe1", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:42.452157+00:00", "actor_subject": null, "connection_id": null}]'
;;
INSERT INTO attempts (kind, key, times, touched_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::TIMESTAMP WITH TIME ZONE[], $4::TIMESTAMP WITH TIME ZONE), ($5::VARCHAR, $6::VARCHAR, $7::TIMESTAMP WITH TIME ZONE[], $8::TIMESTAMP WITH TIME ZONE) ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at RETURNING attempts.kind, attempts.key, attempts.times, attempts.level, attempts.locked_until
-- with 'login_address', '127.0.0.1', '{}', '2026-11-25 19:41:42.67155+00', 'login_user', 'a1a1a1a1-alice', '{}', '2026-11-25 19:41:42.67155+00'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:42.452157+00","2026-11-25 19:41:42.67155+00"}', '0', NULL, 'login_user', 'a1a1a1a1-alice'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:42.452157+00","2026-11-25 19:41:42.67155+00"}', '0', NULL, 'login_address', '127.0.0.1'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at, users.password_hash 
FROM users 
WHERE users.username_key = $1::VARCHAR
-- with 'a1a1a1a1-alice'
;;
INSERT INTO attempts (kind, key, times, touched_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::TIMESTAMP WITH TIME ZONE[], $4::TIMESTAMP WITH TIME ZONE), ($5::VARCHAR, $6::VARCHAR, $7::TIMESTAMP WITH TIME ZONE[], $8::TIMESTAMP WITH TIME ZONE) ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at RETURNING attempts.kind, attempts.key, attempts.times, attempts.level, attempts.locked_until
-- with 'login_address', '127.0.0.1', '{}', '2026-11-25 19:41:42.67155+00', 'login_user', 'a1a1a1a1-alice', '{}', '2026-11-25 19:41:42.67155+00'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:42.452157+00"}', '0', NULL, 'login_user', 'a1a1a1a1-alice'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:42.452157+00"}', '0', NULL, 'login_address', '127.0.0.1'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {}, "count": 1, "event": "auth.login", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-014d-4832-a95a-9259bfa3e6cc", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-e156-46e8-9671-59d9c7da8f5f", "app_version": "0.1.0", "auth_method": "password", "occurred_at": "2026-11-25 19:41:42.671550+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}, {"node": "vm", "attrs": {"jti": "8vJHamsOF89ao0wXu5Dsnw", "kid": "kd53d3ccc", "sid": "STEBsRV4c1Pb0pWX1rjR_w", "kind": "access", "expires_in": 86400}, "count": 1, "event": "auth.token_issued", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-07f3-45fc-8eed-cece7e86ca2a", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-e156-46e8-9671-59d9c7da8f5f", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:42.671550+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
WITH asked AS (
    SELECT $1::uuid IS NULL OR EXISTS (SELECT FROM users WHERE id = $1 AND disabled_at IS NULL) AS enabled,
        (SELECT count(*) FROM pairings
         WHERE desktop_user = $2 AND ended_at IS NULL AND state = 'pending'
           AND desktop_session <> $3 AND expires_at > $4) AS waiting
), admitted AS (
    SELECT FROM asked WHERE enabled AND waiting < $5
), bound AS (
    INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
    SELECT $3, $2, 'desktop', $4, $4 FROM admitted WHERE $2::text IS NOT NULL
    ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at
        WHERE sessions.xmin = (SELECT xmin FROM sessions WHERE session_id = $3)
    RETURNING subject, bound_at = $4 AS new
), made AS (
    INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, created_at, expires_at)
    SELECT $6, drawn.mac, 'pending', $3, $2, $4, $7
    FROM admitted, unnest($8::bytea[]) WITH ORDINALITY AS drawn(mac, place)
    WHERE ($2::text IS NULL OR $2 = (SELECT subject FROM bound))
      AND drawn.place <> ALL (
        SELECT known.place FROM unnest($9::bigint[], $10::bytea[]) AS known(place, mac)
        JOIN pairings ON pairings.code_mac = known.mac)
    ORDER BY drawn.place LIMIT 1
    ON CONFLICT (code_mac) DO NOTHING
    RETURNING code_mac
), superseded AS (
    UPDATE pairings SET state = 'superseded', ended_at = $4, end_reason = 'superseded'
    WHERE desktop_session = $3 AND desktop_user IS NOT DISTINCT FROM $2
      AND ended_at IS NULL AND state = 'pending' AND EXISTS (SELECT FROM made)
    RETURNING id
), told AS (
    INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CASE WHEN (SELECT new FROM bound) THEN $11::jsonb ELSE '[]' END || CASE WHEN EXISTS (SELECT FROM made) THEN $12::jsonb ELSE '[]' END) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
)
SELECT enabled, waiting, (SELECT subject FROM bound), coalesce((SELECT new FROM bound), false),
    (SELECT code_mac FROM made), ARRAY(SELECT id FROM superseded)
FROM asked
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'a1a1a1a1-desktop', '2026-11-25 19:41:42.904742+00', '1000', 'a1a1a1a1-d260-42e5-86ef-a353d64e3e88', '2026-11-25 19:46:42.904742+00', '{"\\xf0c8cd6acc943d38a216591645a418f437644e7057fad8da44e2fffc13ffb4de","\\x43aa29ab8df9489e272987f91b754063b8dec366cfd184fce6551eb199108129","\\xd938256b9097172708b8530fc726d9573c63c4111d5ebe21fe1b3373c3080a54","\\xe7c0e128407cb7c9069b52c49e80b82214fcc27f02cd7e8fc85e9db444465153","\\xd252edf95938a9d5ed9a86b98d4d9693aa9654a235083ba1ca07c968df12f7ef","\\x7ae7b51b4bc02b469e3a0f9779521ef8aa606e43c38899a07c7b550b3d3216df","\\x9548d17db0a59fb340a4fe34daf7caff47922a16974d0c4d37696f1c0d8fb8b1","\\x681639d70cf2d33332bbad89be46182649fdd65918d347abdd5f4f674ab2d4e7"}', '{1,2,3,4,5,6,7,8}', '{"\\xf0c8cd6acc943d38a216591645a418f437644e7057fad8da44e2fffc13ffb4de","\\x43aa29ab8df9489e272987f91b754063b8dec366cfd184fce6551eb199108129","\\xd938256b9097172708b8530fc726d9573c63c4111d5ebe21fe1b3373c3080a54","\\xe7c0e128407cb7c9069b52c49e80b82214fcc27f02cd7e8fc85e9db444465153","\\xd252edf95938a9d5ed9a86b98d4d9693aa9654a235083ba1ca07c968df12f7ef","\\x7ae7b51b4bc02b469e3a0f9779521ef8aa606e43c38899a07c7b550b3d3216df","\\x9548d17db0a59fb340a4fe34daf7caff47922a16974d0c4d37696f1c0d8fb8b1","\\x681639d70cf2d33332bbad89be46182649fdd65918d347abdd5f4f674ab2d4e7"}', '[{"node": "vm", "attrs": {"session_id": "a1a1a1a1-desktop", "device_type": "desktop"}, "count": 1, "event": "session.bound", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-a2a1-4638-80b7-727adf30b3f4", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-3d77-48aa-8a4e-be7e53d6d391", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:42.904742+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]', '[{"node": "vm", "attrs": {"expires_at": "2026-11-25T19:46:42.904742+00:00", "desktop_session": "a1a1a1a1-desktop"}, "count": 1, "event": "pairing.code_created", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-928e-468a-948d-cab60d04981d", "severity": 6, "actor_kind": "user", "pairing_id": "a1a1a1a1-d260-42e5-86ef-a353d64e3e88", "request_id": "a1a1a1a1-3d77-48aa-8a4e-be7e53d6d391", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:42.904742+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
WITH asked AS (
    SELECT $1::uuid IS NULL OR EXISTS (SELECT FROM users WHERE id = $1 AND disabled_at IS NULL) AS enabled,
        (SELECT count(*) FROM pairings
         WHERE desktop_user = $2 AND ended_at IS NULL AND state = 'pending'
           AND desktop_session <> $3 AND expires_at > $4) AS waiting
), admitted AS (
    SELECT FROM asked WHERE enabled AND waiting < $5
), bound AS (
    INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
    SELECT $3, $2, 'desktop', $4, $4 FROM admitted WHERE $2::text IS NOT NULL
    ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at
        WHERE sessions.xmin = (SELECT xmin FROM sessions WHERE session_id = $3)
    RETURNING subject, bound_at = $4 AS new
), made AS (
    INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, created_at, expires_at)
    SELECT $6, drawn.mac, 'pending', $3, $2, $4, $7
    FROM admitted, unnest($8::bytea[]) WITH ORDINALITY AS drawn(mac, place)
    WHERE ($2::text IS NULL OR $2 = (SELECT subject FROM bound))
      AND drawn.place <> ALL (
        SELECT known.place FROM unnest($9::bigint[], $10::bytea[]) AS known(place, mac)
        JOIN pairings ON pairings.code_mac = known.mac)
    ORDER BY drawn.place LIMIT 1
    ON CONFLICT (code_mac) DO NOTHING
    RETURNING code_mac
), superseded AS (
    UPDATE pairings SET state = 'superseded', ended_at = $4, end_reason = 'superseded'
    WHERE desktop_session = $3 AND desktop_user IS NOT DISTINCT FROM $2
      AND ended_at IS NULL AND state = 'pending' AND EXISTS (SELECT FROM made)
    RETURNING id
), told AS (
    INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CASE WHEN (SELECT new FROM bound) THEN $11::jsonb ELSE '[]' END || CASE WHEN EXISTS (SELECT FROM made) THEN $12::jsonb ELSE '[]' END) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
)
SELECT enabled, waiting, (SELECT subject FROM bound), coalesce((SELECT new FROM bound), false),
    (SELECT code_mac FROM made), ARRAY(SELECT id FROM superseded)
FROM asked
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'a1a1a1a1-desktop', '2026-11-25 19:41:42.97216+00', '1000', 'a1a1a1a1-5d5b-43d4-897a-98815058d4bc', '2026-11-25 19:46:42.97216+00', '{"\\x4eb6581aec904a52dd0e31dceea3caccdf1269224a12edad699ff64ab9c7e87d","\\x3934ae28482dfa828454491cc6e923ba781532a1e4d98bccc7c95bc9e3918833","\\x5c93e33971d1d436e95bfcf347e2a6ba63b1abffee47320e4fb4554d86aa2a8b","\\x621244dfcc8a5ff21a09ed8d7499849719fda89118bc58c359d9bda491befbd7","\\x12839fcadd0e4db0141895c31fb83947c046e218aa5c437ec9f62bdf548cabd4","\\x1018c24409cecd23d4534405c41dc39ff610be90cbaeb5f021d61c3c91ac5dfc","\\x996a800e1ceda784a5ea277ea3de2653c5e317f7271391ebbd1e472aa1b93328","\\xf1a9ee4a5df739470c55e2d441f6f35966306d2b7974af16096e7148790e506a"}', '{1,2,3,4,5,6,7,8}', '{"\\x4eb6581aec904a52dd0e31dceea3caccdf1269224a12edad699ff64ab9c7e87d","\\x3934ae28482dfa828454491cc6e923ba781532a1e4d98bccc7c95bc9e3918833","\\x5c93e33971d1d436e95bfcf347e2a6ba63b1abffee47320e4fb4554d86aa2a8b","\\x621244dfcc8a5ff21a09ed8d7499849719fda89118bc58c359d9bda491befbd7","\\x12839fcadd0e4db0141895c31fb83947c046e218aa5c437ec9f62bdf548cabd4","\\x1018c24409cecd23d4534405c41dc39ff610be90cbaeb5f021d61c3c91ac5dfc","\\x996a800e1ceda784a5ea277ea3de2653c5e317f7271391ebbd1e472aa1b93328","\\xf1a9ee4a5df739470c55e2d441f6f35966306d2b7974af16096e7148790e506a"}', '[{"node": "vm", "attrs": {"session_id": "a1a1a1a1-desktop", "device_type": "desktop"}, "count": 1, "event": "session.bound", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-7c27-4b35-8da7-4c056530004f", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-e045-4c20-aa60-ab9a5fe943aa", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:42.972160+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]', '[{"node": "vm", "attrs": {"expires_at": "2026-11-25T19:46:42.972160+00:00", "desktop_session": "a1a1a1a1-desktop"}, "count": 1, "event": "pairing.code_created", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-7850-4351-8741-d5961edfeb41", "severity": 6, "actor_kind": "user", "pairing_id": "a1a1a1a1-5d5b-43d4-897a-98815058d4bc", "request_id": "a1a1a1a1-e045-4c20-aa60-ab9a5fe943aa", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:42.972160+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
WITH asked AS (
    SELECT $1::uuid IS NULL OR EXISTS (SELECT FROM users WHERE id = $1 AND disabled_at IS NULL) AS enabled
), held AS (
    INSERT INTO attempts (kind, key, times, touched_at)
    SELECT kind, key, '{}', $2
    FROM unnest($3::text[], $4::text[]) AS counted(kind, key)
    ORDER BY kind COLLATE "C", key COLLATE "C"
    ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at
    RETURNING kind, locked_until
), decided AS (
    SELECT enabled, EXISTS (SELECT FROM held WHERE locked_until > $2 AND kind = ANY ($5::text[])) AS locked_out
    FROM asked, (SELECT count(*) FROM held) AS all_of_them
), bound AS (
    INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
    SELECT $6, $7, 'mobile', $2, $2 FROM decided WHERE enabled AND NOT locked_out AND $7::text IS NOT NULL
    ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at
    RETURNING subject, bound_at = $2 AS new
), seated AS (
    UPDATE pairings
    SET state = CASE state WHEN 'pending' THEN 'redeemed' ELSE state END,
        mobile_session = $6, mobile_user = $7, redeemed_at = coalesce(redeemed_at, $2)
    WHERE code_mac = ANY ($8::bytea[])
      AND (state = 'pending' AND expires_at > $2
            AND (NOT $9::boolean OR desktop_user IS NULL OR desktop_user = $7)
        OR state IN ('redeemed', 'active', 'waiting')
            AND mobile_session = $6 AND mobile_user IS NOT DISTINCT FROM $7)
      AND (SELECT enabled AND NOT locked_out FROM decided)
      AND ($7::text IS NULL OR $7 = (SELECT subject FROM bound))
    RETURNING pairings.*
), superseded AS (
    UPDATE pairings SET state = 'superseded', ended_at = $2, end_reason = 'superseded'
    FROM seated
    WHERE pairings.desktop_session = seated.desktop_session
      AND pairings.desktop_user IS NOT DISTINCT FROM seated.desktop_user
      AND pairings.ended_at IS NULL AND pairings.state IN ('redeemed', 'active', 'waiting')
      AND pairings.id <> seated.id
    RETURNING pairings.id
), told AS (
    INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CASE WHEN (SELECT new FROM bound) THEN $11::jsonb ELSE '[]' END || (
        SELECT coalesce(jsonb_agg($10::jsonb || jsonb_build_object(
            'pairing_id', id,
            'reason', CASE WHEN redeemed_at <> $2 THEN 'retry_same' END,
            'attrs', $10::jsonb -> 'attrs' || jsonb_build_object(
                'ms_since_created', round(1000 * extract(epoch FROM $2 - created_at))))), '[]')
        FROM seated)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
)
SELECT enabled, locked_out, (SELECT subject FROM bound), coalesce((SELECT new FROM bound), false),
    ARRAY(SELECT id FROM superseded), seated.id, seated.state, seated.desktop_session, seated.desktop_user, seated.mobile_session, seated.mobile_user, seated.created_at, seated.expires_at, seated.redeemed_at, seated.activated_at, seated.ended_at, seated.end_reason
FROM decided LEFT JOIN seated ON true
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '2026-11-25 19:41:43.003959+00', '{redeem_address,redeem_user}', '{127.0.0.1,a1a1a1a1-a776-45bc-b793-6dc0836ab80f}', '{redeem_user}', 'a1a1a1a1-mobile', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '{"\\xfabfc2c77a5de5058401f40075e7d01b541fa70bc34a2de6568161d498c46463"}', 't', '{"node": "vm", "attrs": {"mobile_session": "a1a1a1a1-mobile"}, "count": 1, "event": "pairing.redeem", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-a615-4254-b297-9e8ffbdf1b7a", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-f4fd-482b-910e-13f52e42611c", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.003959+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}', '[{"node": "vm", "attrs": {"session_id": "a1a1a1a1-mobile", "device_type": "mobile"}, "count": 1, "event": "session.bound", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-c15a-4d56-b1e2-49c821368df4", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-f4fd-482b-910e-13f52e42611c", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.003959+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
INSERT INTO attempts (kind, key, times, touched_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::TIMESTAMP WITH TIME ZONE[], $4::TIMESTAMP WITH TIME ZONE), ($5::VARCHAR, $6::VARCHAR, $7::TIMESTAMP WITH TIME ZONE[], $8::TIMESTAMP WITH TIME ZONE) ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at RETURNING attempts.kind, attempts.key, attempts.times, attempts.level, attempts.locked_until
-- with 'redeem_address', '127.0.0.1', '{}', '2026-11-25 19:41:43.003959+00', 'redeem_user', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '{}', '2026-11-25 19:41:43.003959+00'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:43.003959+00"}', '0', NULL, 'redeem_address', '127.0.0.1'
;;
UPDATE attempts SET times=$1::TIMESTAMP WITH TIME ZONE[], level=$2::SMALLINT, locked_until=$3::TIMESTAMP WITH TIME ZONE WHERE attempts.kind = $4::VARCHAR AND attempts.key = $5::VARCHAR
-- with '{"2026-11-25 19:41:43.003959+00"}', '0', NULL, 'redeem_user', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"mobile_session": "a1a1a1a1-mobile"}, "count": 1, "event": "pairing.redeem", "reason": "no_such_code", "address": "127.0.0.1", "outcome": "failure", "event_id": "a1a1a1a1-6d6f-4989-bb4a-00ca8092d55a", "severity": 4, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-f4fd-482b-910e-13f52e42611c", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.003959+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
WITH asked AS (
    SELECT $1::uuid IS NULL OR EXISTS (SELECT FROM users WHERE id = $1 AND disabled_at IS NULL) AS enabled
), held AS (
    INSERT INTO attempts (kind, key, times, touched_at)
    SELECT kind, key, '{}', $2
    FROM unnest($3::text[], $4::text[]) AS counted(kind, key)
    ORDER BY kind COLLATE "C", key COLLATE "C"
    ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at
    RETURNING kind, locked_until
), decided AS (
    SELECT enabled, EXISTS (SELECT FROM held WHERE locked_until > $2 AND kind = ANY ($5::text[])) AS locked_out
    FROM asked, (SELECT count(*) FROM held) AS all_of_them
), bound AS (
    INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
    SELECT $6, $7, 'mobile', $2, $2 FROM decided WHERE enabled AND NOT locked_out AND $7::text IS NOT NULL
    ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at
    RETURNING subject, bound_at = $2 AS new
), seated AS (
    UPDATE pairings
    SET state = CASE state WHEN 'pending' THEN 'redeemed' ELSE state END,
        mobile_session = $6, mobile_user = $7, redeemed_at = coalesce(redeemed_at, $2)
    WHERE code_mac = ANY ($8::bytea[])
      AND (state = 'pending' AND expires_at > $2
            AND (NOT $9::boolean OR desktop_user IS NULL OR desktop_user = $7)
        OR state IN ('redeemed', 'active', 'waiting')
            AND mobile_session = $6 AND mobile_user IS NOT DISTINCT FROM $7)
      AND (SELECT enabled AND NOT locked_out FROM decided)
      AND ($7::text IS NULL OR $7 = (SELECT subject FROM bound))
    RETURNING pairings.*
), superseded AS (
    UPDATE pairings SET state = 'superseded', ended_at = $2, end_reason = 'superseded'
    FROM seated
    WHERE pairings.desktop_session = seated.desktop_session
      AND pairings.desktop_user IS NOT DISTINCT FROM seated.desktop_user
      AND pairings.ended_at IS NULL AND pairings.state IN ('redeemed', 'active', 'waiting')
      AND pairings.id <> seated.id
    RETURNING pairings.id
), told AS (
    INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CASE WHEN (SELECT new FROM bound) THEN $11::jsonb ELSE '[]' END || (
        SELECT coalesce(jsonb_agg($10::jsonb || jsonb_build_object(
            'pairing_id', id,
            'reason', CASE WHEN redeemed_at <> $2 THEN 'retry_same' END,
            'attrs', $10::jsonb -> 'attrs' || jsonb_build_object(
                'ms_since_created', round(1000 * extract(epoch FROM $2 - created_at))))), '[]')
        FROM seated)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
)
SELECT enabled, locked_out, (SELECT subject FROM bound), coalesce((SELECT new FROM bound), false),
    ARRAY(SELECT id FROM superseded), seated.id, seated.state, seated.desktop_session, seated.desktop_user, seated.mobile_session, seated.mobile_user, seated.created_at, seated.expires_at, seated.redeemed_at, seated.activated_at, seated.ended_at, seated.end_reason
FROM decided LEFT JOIN seated ON true
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '2026-11-25 19:41:43.055015+00', '{redeem_address,redeem_user}', '{127.0.0.1,a1a1a1a1-a776-45bc-b793-6dc0836ab80f}', '{redeem_user}', 'a1a1a1a1-mobile', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '{"\\x4eb6581aec904a52dd0e31dceea3caccdf1269224a12edad699ff64ab9c7e87d"}', 't', '{"node": "vm", "attrs": {"mobile_session": "a1a1a1a1-mobile"}, "count": 1, "event": "pairing.redeem", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-cecc-4e79-b8b6-c2409f135528", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-ab19-480c-a23b-394368c88812", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.055015+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}', '[{"node": "vm", "attrs": {"session_id": "a1a1a1a1-mobile", "device_type": "mobile"}, "count": 1, "event": "session.bound", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-296b-44d2-9972-d933008c85a3", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-ab19-480c-a23b-394368c88812", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.055015+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
WITH asked AS (
    SELECT $1::uuid IS NULL OR EXISTS (SELECT FROM users WHERE id = $1 AND disabled_at IS NULL) AS enabled
), held AS (
    INSERT INTO attempts (kind, key, times, touched_at)
    SELECT kind, key, '{}', $2
    FROM unnest($3::text[], $4::text[]) AS counted(kind, key)
    ORDER BY kind COLLATE "C", key COLLATE "C"
    ON CONFLICT (kind, key) DO UPDATE SET touched_at = excluded.touched_at
    RETURNING kind, locked_until
), decided AS (
    SELECT enabled, EXISTS (SELECT FROM held WHERE locked_until > $2 AND kind = ANY ($5::text[])) AS locked_out
    FROM asked, (SELECT count(*) FROM held) AS all_of_them
), bound AS (
    INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at)
    SELECT $6, $7, 'mobile', $2, $2 FROM decided WHERE enabled AND NOT locked_out AND $7::text IS NOT NULL
    ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at
    RETURNING subject, bound_at = $2 AS new
), seated AS (
    UPDATE pairings
    SET state = CASE state WHEN 'pending' THEN 'redeemed' ELSE state END,
        mobile_session = $6, mobile_user = $7, redeemed_at = coalesce(redeemed_at, $2)
    WHERE code_mac = ANY ($8::bytea[])
      AND (state = 'pending' AND expires_at > $2
            AND (NOT $9::boolean OR desktop_user IS NULL OR desktop_user = $7)
        OR state IN ('redeemed', 'active', 'waiting')
            AND mobile_session = $6 AND mobile_user IS NOT DISTINCT FROM $7)
      AND (SELECT enabled AND NOT locked_out FROM decided)
      AND ($7::text IS NULL OR $7 = (SELECT subject FROM bound))
    RETURNING pairings.*
), superseded AS (
    UPDATE pairings SET state = 'superseded', ended_at = $2, end_reason = 'superseded'
    FROM seated
    WHERE pairings.desktop_session = seated.desktop_session
      AND pairings.desktop_user IS NOT DISTINCT FROM seated.desktop_user
      AND pairings.ended_at IS NULL AND pairings.state IN ('redeemed', 'active', 'waiting')
      AND pairings.id <> seated.id
    RETURNING pairings.id
), told AS (
    INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CASE WHEN (SELECT new FROM bound) THEN $11::jsonb ELSE '[]' END || (
        SELECT coalesce(jsonb_agg($10::jsonb || jsonb_build_object(
            'pairing_id', id,
            'reason', CASE WHEN redeemed_at <> $2 THEN 'retry_same' END,
            'attrs', $10::jsonb -> 'attrs' || jsonb_build_object(
                'ms_since_created', round(1000 * extract(epoch FROM $2 - created_at))))), '[]')
        FROM seated)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
)
SELECT enabled, locked_out, (SELECT subject FROM bound), coalesce((SELECT new FROM bound), false),
    ARRAY(SELECT id FROM superseded), seated.id, seated.state, seated.desktop_session, seated.desktop_user, seated.mobile_session, seated.mobile_user, seated.created_at, seated.expires_at, seated.redeemed_at, seated.activated_at, seated.ended_at, seated.end_reason
FROM decided LEFT JOIN seated ON true
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '2026-11-25 19:41:43.109886+00', '{redeem_address,redeem_user}', '{127.0.0.1,a1a1a1a1-a776-45bc-b793-6dc0836ab80f}', '{redeem_user}', 'a1a1a1a1-mobile', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '{"\\x4eb6581aec904a52dd0e31dceea3caccdf1269224a12edad699ff64ab9c7e87d"}', 't', '{"node": "vm", "attrs": {"mobile_session": "a1a1a1a1-mobile"}, "count": 1, "event": "pairing.redeem", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-3c42-497c-8b46-7aa5ea4dad1f", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-bdcb-4531-80a8-f97409841175", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.109886+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}', '[{"node": "vm", "attrs": {"session_id": "a1a1a1a1-mobile", "device_type": "mobile"}, "count": 1, "event": "session.bound", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-2d88-47b7-9adf-c841221a9183", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-bdcb-4531-80a8-f97409841175", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.109886+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"jti": "P5lnhEJsfdEU5Z1xeth8gQ", "kid": "kd53d3ccc", "sid": "STEBsRV4c1Pb0pWX1rjR_w", "kind": "ws", "expires_in": 3600, "device_type": "desktop"}, "count": 1, "event": "auth.token_issued", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-1a66-44af-b392-a3dde785f648", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-48d7-454a-9ed4-b89cafc826dd", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.151961+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::VARCHAR, $4::TIMESTAMP WITH TIME ZONE, $5::TIMESTAMP WITH TIME ZONE) ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at RETURNING sessions.subject, sessions.bound_at = $6::TIMESTAMP WITH TIME ZONE AS anon_1
-- with 'a1a1a1a1-desktop', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'desktop', '2026-11-25 19:41:43.224766+00', '2026-11-25 19:41:43.224766+00', '2026-11-25 19:41:43.224766+00'
;;
SELECT pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason 
FROM pairings 
WHERE pairings.code_mac IN ($1::BYTEA)
-- with '\xa1a1a1a1ec904a52dd0e31dceea3caccdf1269224a12edad699ff64ab9c7e87d'
;;
UPDATE pairings SET desktop_user=$1::VARCHAR, seen_at=$2::TIMESTAMP WITH TIME ZONE WHERE pairings.id = $3::UUID AND (pairings.state IN ($8::VARCHAR, $9::VARCHAR, $10::VARCHAR) OR pairings.state = $4::VARCHAR AND pairings.expires_at > $5::TIMESTAMP WITH TIME ZONE) AND pairings.desktop_session = $6::VARCHAR AND (pairings.desktop_user = $7::VARCHAR OR pairings.desktop_user IS NULL) RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '2026-11-25 19:41:43.224766+00', 'a1a1a1a1-5d5b-43d4-897a-98815058d4bc', 'pending', '2026-11-25 19:41:43.224766+00', 'a1a1a1a1-desktop', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'redeemed', 'active', 'waiting'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"jti": "9cFANOZnWHdvovdOD2WHLg", "kid": "kd53d3ccc", "sid": "STEBsRV4c1Pb0pWX1rjR_w", "kind": "ws", "expires_in": 3600, "device_type": "mobile"}, "count": 1, "event": "auth.token_issued", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-3d01-4bd6-9c8f-11bb2ff00149", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-9b4c-41f6-86e3-c97889594370", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.344555+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::VARCHAR, $4::TIMESTAMP WITH TIME ZONE, $5::TIMESTAMP WITH TIME ZONE) ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at RETURNING sessions.subject, sessions.bound_at = $6::TIMESTAMP WITH TIME ZONE AS anon_1
-- with 'a1a1a1a1-mobile', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'mobile', '2026-11-25 19:41:43.394558+00', '2026-11-25 19:41:43.394558+00', '2026-11-25 19:41:43.394558+00'
;;
SELECT pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason 
FROM pairings 
WHERE pairings.code_mac IN ($1::BYTEA)
-- with '\xa1a1a1a1ec904a52dd0e31dceea3caccdf1269224a12edad699ff64ab9c7e87d'
;;
UPDATE pairings SET state=$1::VARCHAR, mobile_user=$2::VARCHAR, activated_at=coalesce(pairings.activated_at, $3::TIMESTAMP WITH TIME ZONE), seen_at=$4::TIMESTAMP WITH TIME ZONE WHERE pairings.id = $5::UUID AND pairings.state IN ($8::VARCHAR, $9::VARCHAR, $10::VARCHAR) AND pairings.mobile_session = $6::VARCHAR AND (pairings.mobile_user = $7::VARCHAR OR pairings.mobile_user IS NULL) RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'active', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '2026-11-25 19:41:43.394558+00', '2026-11-25 19:41:43.394558+00', 'a1a1a1a1-5d5b-43d4-897a-98815058d4bc', 'a1a1a1a1-mobile', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'redeemed', 'active', 'waiting'
;;
INSERT INTO users (id, username, username_key, password_hash, role, created_at) VALUES ($1::UUID, $2::VARCHAR, $3::VARCHAR, $4::VARCHAR, $5::VARCHAR, $6::TIMESTAMP WITH TIME ZONE) ON CONFLICT (username_key) DO NOTHING RETURNING users.id, users.username, users.role, users.created_at, users.disabled_at
-- with 'a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d', 'a1a1a1a1-bob', 'a1a1a1a1-bob', 'no password', 'user', '2026-11-25 19:41:43.453687+00'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"jti": "KtachTvS950Gv0NEc1WJjA", "kid": "kd53d3ccc", "sid": "fNf6t2Amd3teITBjenvR-g", "kind": "ws", "expires_in": 3600, "device_type": "mobile"}, "count": 1, "event": "auth.token_issued", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-e087-4518-90d6-3797537a3f5d", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-8a50-4b63-b979-15bb34534c7d", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.463025+00:00", "actor_subject": "a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d", "connection_id": null}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d'
;;
INSERT INTO sessions (session_id, subject, device_type, bound_at, seen_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::VARCHAR, $4::TIMESTAMP WITH TIME ZONE, $5::TIMESTAMP WITH TIME ZONE) ON CONFLICT (session_id) DO UPDATE SET seen_at = excluded.seen_at RETURNING sessions.subject, sessions.bound_at = $6::TIMESTAMP WITH TIME ZONE AS anon_1
-- with 'a1a1a1a1-other', 'a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d', 'mobile', '2026-11-25 19:41:43.506204+00', '2026-11-25 19:41:43.506204+00', '2026-11-25 19:41:43.506204+00'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"session_id": "a1a1a1a1-other", "device_type": "mobile"}, "count": 1, "event": "session.bound", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-e114-4953-afbf-7416defb0766", "severity": 6, "actor_kind": "device", "pairing_id": null, "request_id": "a1a1a1a1-964e-466d-a837-2afd414e5fa6", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.506204+00:00", "actor_subject": "a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d", "connection_id": "a1a1a1a1-af9f-4b14-82be-3604f6a0997c"}]'
;;
SELECT pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason 
FROM pairings 
WHERE pairings.code_mac IN ($1::BYTEA)
-- with '\xa1a1a1a1ec904a52dd0e31dceea3caccdf1269224a12edad699ff64ab9c7e87d'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {}, "count": 1, "event": "channel.denied", "reason": "full", "address": "127.0.0.1", "outcome": "denied", "event_id": "a1a1a1a1-b30f-4588-8bbd-573e8669b2bd", "severity": 4, "actor_kind": "device", "pairing_id": "a1a1a1a1-5d5b-43d4-897a-98815058d4bc", "request_id": "a1a1a1a1-964e-466d-a837-2afd414e5fa6", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.506204+00:00", "actor_subject": "a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d", "connection_id": "a1a1a1a1-af9f-4b14-82be-3604f6a0997c"}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
SELECT pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason 
FROM pairings 
WHERE (pairings.desktop_user = $1::VARCHAR OR pairings.mobile_user = $2::VARCHAR) AND pairings.ended_at IS NULL ORDER BY pairings.created_at DESC 
 LIMIT $3::INTEGER
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', '100'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at, users.password_hash 
FROM users 
WHERE users.username_key = $1::VARCHAR
-- with 'a1a1a1a1-alice'
;;
UPDATE users SET role=$1::VARCHAR WHERE users.id = $2::UUID
-- with 'auditor', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"was": "user", "role": "auditor", "target": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f"}, "count": 1, "event": "account.role_changed", "reason": null, "address": null, "outcome": "success", "event_id": "a1a1a1a1-1bcc-4a92-ba19-a41579797e42", "severity": 4, "actor_kind": "system", "pairing_id": null, "request_id": null, "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.658346+00:00", "actor_subject": null, "connection_id": null}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
SELECT audit_events.seq, audit_events.recorded_at, audit_events.event_id, audit_events.event, audit_events.severity, audit_events.outcome, audit_events.occurred_at, audit_events.node, audit_events.app_version, audit_events.actor_kind, audit_events.reason, audit_events.actor_subject, audit_events.auth_method, host(audit_events.address) AS host_1, audit_events.request_id, audit_events.connection_id, audit_events.pairing_id, audit_events.count, audit_events.attrs 
FROM audit_events 
WHERE audit_events.event = $1::VARCHAR ORDER BY audit_events.recorded_at DESC, audit_events.seq DESC 
 LIMIT $2::INTEGER
-- with 'auth.login', '5'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"rows": 2, "event": "auth.login"}, "count": 1, "event": "audit.query", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-c78e-4cb4-b52f-40196535accb", "severity": 6, "actor_kind": "user", "pairing_id": null, "request_id": "a1a1a1a1-dc83-4146-9e7b-d706b3d21822", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.724645+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"schema": "0001"}, "count": 1, "event": "system.started", "reason": null, "address": null, "outcome": "success", "event_id": "a1a1a1a1-3311-47b2-8279-33ee72b60e98", "severity": 5, "actor_kind": "system", "pairing_id": null, "request_id": null, "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:42.215125+00:00", "actor_subject": null, "connection_id": null}, {"node": "vm", "attrs": {"ua": "Tornado/6.6.1", "jti": "P5lnhEJsfdEU5Z1xeth8gQ", "origin": null, "token_via": "query", "device_type": "desktop"}, "count": 1, "event": "ws.connected", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-1467-43c0-962a-063a832b57d7", "severity": 6, "actor_kind": "device", "pairing_id": null, "request_id": "a1a1a1a1-9922-43f6-84e9-b42a82b8efdb", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.202480+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": "a1a1a1a1-deba-4d5d-b562-a0db65d1a156"}, {"node": "vm", "attrs": {"slot": "desktop"}, "count": 1, "event": "channel.joined", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-eee6-462c-b40c-04816cb9244d", "severity": 6, "actor_kind": "device", "pairing_id": "a1a1a1a1-5d5b-43d4-897a-98815058d4bc", "request_id": "a1a1a1a1-9922-43f6-84e9-b42a82b8efdb", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.312558+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": "a1a1a1a1-deba-4d5d-b562-a0db65d1a156"}, {"node": "vm", "attrs": {"ua": "Tornado/6.6.1", "jti": "9cFANOZnWHdvovdOD2WHLg", "origin": null, "token_via": "query", "device_type": "mobile"}, "count": 1, "event": "ws.connected", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-a4e1-46db-b197-1afe2c95949b", "severity": 6, "actor_kind": "device", "pairing_id": null, "request_id": "a1a1a1a1-d3a1-4431-ba88-f56c0ebc3096", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.394026+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": "a1a1a1a1-2baf-4c01-aba8-87b477091760"}, {"node": "vm", "attrs": {"slot": "mobile"}, "count": 1, "event": "channel.joined", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-8981-4216-957a-3d1f5e614f08", "severity": 6, "actor_kind": "device", "pairing_id": "a1a1a1a1-5d5b-43d4-897a-98815058d4bc", "request_id": "a1a1a1a1-d3a1-4431-ba88-f56c0ebc3096", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.444112+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": "a1a1a1a1-2baf-4c01-aba8-87b477091760"}, {"node": "vm", "attrs": {"ua": "Tornado/6.6.1", "jti": "KtachTvS950Gv0NEc1WJjA", "origin": null, "token_via": "query", "device_type": "mobile"}, "count": 1, "event": "ws.connected", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-a1e8-49c2-a5c7-b3c5d5e964c1", "severity": 6, "actor_kind": "device", "pairing_id": null, "request_id": "a1a1a1a1-964e-466d-a837-2afd414e5fa6", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.495912+00:00", "actor_subject": "a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d", "connection_id": "a1a1a1a1-af9f-4b14-82be-3604f6a0997c"}]'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state = $4::VARCHAR AND pairings.expires_at <= $5::TIMESTAMP WITH TIME ZONE 
 LIMIT $6::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state = $4::VARCHAR AND pairings.expires_at <= $5::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'expired', '2026-11-25 19:41:43.81533+00', 'expired', 'pending', '2026-11-25 19:41:43.81533+00', '1000'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state = $4::VARCHAR AND pairings.redeemed_at <= $5::TIMESTAMP WITH TIME ZONE 
 LIMIT $6::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state = $4::VARCHAR AND pairings.redeemed_at <= $5::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 19:41:43.81533+00', 'never_active', 'redeemed', '2026-11-25 19:36:43.81533+00', '1000'
;;
SELECT users.id 
FROM users 
WHERE users.id IN ($1::UUID, $2::UUID) AND users.disabled_at IS NOT NULL
-- with 'a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
SELECT count(*) AS count_1 
FROM pairings 
WHERE pairings.ended_at IS NULL
;;
UPDATE pairings SET state=$1::VARCHAR, activated_at=coalesce(pairings.activated_at, $2::TIMESTAMP WITH TIME ZONE), seen_at=$3::TIMESTAMP WITH TIME ZONE WHERE pairings.id IN ($4::UUID) AND pairings.state IN ($5::VARCHAR, $6::VARCHAR, $7::VARCHAR)
-- with 'active', '2026-11-25 19:41:43.940184+00', '2026-11-25 19:41:43.940184+00', 'a1a1a1a1-5d5b-43d4-897a-98815058d4bc', 'redeemed', 'waiting', 'active'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state IN ($6::VARCHAR, $7::VARCHAR) AND pairings.seen_at <= $4::TIMESTAMP WITH TIME ZONE 
 LIMIT $5::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state IN ($6::VARCHAR, $7::VARCHAR) AND pairings.seen_at <= $4::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 19:41:44.020247+00', 'deserted', '2026-11-25 19:35:44.020247+00', '1000', 'active', 'waiting'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.ended_at <= $2::TIMESTAMP WITH TIME ZONE AND pairings.code_mac IS NOT NULL 
 LIMIT $3::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET code_mac=$1::BYTEA WHERE pairings.id IN (SELECT batch.id 
FROM batch)
-- with NULL, '2026-11-25 19:31:44.049107+00', '1000'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.ended_at <= $1::TIMESTAMP WITH TIME ZONE 
 LIMIT $2::INTEGER FOR UPDATE SKIP LOCKED)
 DELETE FROM pairings WHERE pairings.id IN (SELECT batch.id 
FROM batch)
-- with '2026-10-26 19:41:44.049107+00', '1000'
;;
DELETE FROM attempts WHERE attempts.touched_at < $1::TIMESTAMP WITH TIME ZONE
-- with '2026-11-23 18:41:44.08828+00'
;;
DELETE FROM sessions WHERE sessions.seen_at < $1::TIMESTAMP WITH TIME ZONE
-- with '2025-11-25 19:41:44.08828+00'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state = $4::VARCHAR AND pairings.expires_at <= $5::TIMESTAMP WITH TIME ZONE 
 LIMIT $6::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state = $4::VARCHAR AND pairings.expires_at <= $5::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'expired', '2026-11-25 19:46:45.13306+00', 'expired', 'pending', '2026-11-25 19:46:45.13306+00', '1000'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state = $4::VARCHAR AND pairings.redeemed_at <= $5::TIMESTAMP WITH TIME ZONE 
 LIMIT $6::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state = $4::VARCHAR AND pairings.redeemed_at <= $5::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 19:46:45.13306+00', 'never_active', 'redeemed', '2026-11-25 19:41:45.13306+00', '1000'
;;
SELECT users.id 
FROM users 
WHERE users.id IN ($1::UUID) AND users.disabled_at IS NOT NULL
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
SELECT count(*) AS count_1 
FROM pairings 
WHERE pairings.ended_at IS NULL
;;
UPDATE pairings SET state=$1::VARCHAR, activated_at=coalesce(pairings.activated_at, $2::TIMESTAMP WITH TIME ZONE), seen_at=$3::TIMESTAMP WITH TIME ZONE WHERE pairings.id IN ($4::UUID) AND pairings.state IN ($5::VARCHAR, $6::VARCHAR, $7::VARCHAR)
-- with 'active', '2026-11-25 19:46:45.249676+00', '2026-11-25 19:46:45.249676+00', 'a1a1a1a1-5d5b-43d4-897a-98815058d4bc', 'redeemed', 'waiting', 'active'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state IN ($6::VARCHAR, $7::VARCHAR) AND pairings.seen_at <= $4::TIMESTAMP WITH TIME ZONE 
 LIMIT $5::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state IN ($6::VARCHAR, $7::VARCHAR) AND pairings.seen_at <= $4::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 19:46:45.268429+00', 'deserted', '2026-11-25 19:40:45.268429+00', '1000', 'active', 'waiting'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.ended_at <= $2::TIMESTAMP WITH TIME ZONE AND pairings.code_mac IS NOT NULL 
 LIMIT $3::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET code_mac=$1::BYTEA WHERE pairings.id IN (SELECT batch.id 
FROM batch)
-- with NULL, '2026-11-25 19:36:45.293034+00', '1000'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.ended_at <= $1::TIMESTAMP WITH TIME ZONE 
 LIMIT $2::INTEGER FOR UPDATE SKIP LOCKED)
 DELETE FROM pairings WHERE pairings.id IN (SELECT batch.id 
FROM batch)
-- with '2026-10-26 19:46:45.293034+00', '1000'
;;
DELETE FROM attempts WHERE attempts.touched_at < $1::TIMESTAMP WITH TIME ZONE
-- with '2026-11-23 18:46:45.301601+00'
;;
DELETE FROM sessions WHERE sessions.seen_at < $1::TIMESTAMP WITH TIME ZONE
-- with '2025-11-25 19:46:45.301601+00'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"by": "server", "close_code": 4408, "duration_s": 1, "messages_in": 1}, "count": 1, "event": "ws.disconnected", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-cd1f-4232-9eab-a1b939d4a15e", "severity": 6, "actor_kind": "device", "pairing_id": null, "request_id": "a1a1a1a1-964e-466d-a837-2afd414e5fa6", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:44.133551+00:00", "actor_subject": "a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d", "connection_id": "a1a1a1a1-af9f-4b14-82be-3604f6a0997c"}]'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state = $4::VARCHAR AND pairings.expires_at <= $5::TIMESTAMP WITH TIME ZONE 
 LIMIT $6::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state = $4::VARCHAR AND pairings.expires_at <= $5::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'expired', '2026-11-25 20:41:44.338801+00', 'expired', 'pending', '2026-11-25 20:41:44.338801+00', '1000'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state = $4::VARCHAR AND pairings.redeemed_at <= $5::TIMESTAMP WITH TIME ZONE 
 LIMIT $6::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state = $4::VARCHAR AND pairings.redeemed_at <= $5::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 20:41:44.338801+00', 'never_active', 'redeemed', '2026-11-25 20:36:44.338801+00', '1000'
;;
SELECT users.id 
FROM users 
WHERE users.id IN ($1::UUID) AND users.disabled_at IS NOT NULL
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
SELECT count(*) AS count_1 
FROM pairings 
WHERE pairings.ended_at IS NULL
;;
UPDATE pairings SET state=$1::VARCHAR, activated_at=coalesce(pairings.activated_at, $2::TIMESTAMP WITH TIME ZONE), seen_at=$3::TIMESTAMP WITH TIME ZONE WHERE pairings.id IN ($4::UUID) AND pairings.state IN ($5::VARCHAR, $6::VARCHAR, $7::VARCHAR)
-- with 'active', '2026-11-25 20:41:44.375819+00', '2026-11-25 20:41:44.375819+00', 'a1a1a1a1-5d5b-43d4-897a-98815058d4bc', 'redeemed', 'waiting', 'active'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state IN ($6::VARCHAR, $7::VARCHAR) AND pairings.seen_at <= $4::TIMESTAMP WITH TIME ZONE 
 LIMIT $5::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state IN ($6::VARCHAR, $7::VARCHAR) AND pairings.seen_at <= $4::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 20:41:44.396258+00', 'deserted', '2026-11-25 20:35:44.396258+00', '1000', 'active', 'waiting'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.ended_at <= $2::TIMESTAMP WITH TIME ZONE AND pairings.code_mac IS NOT NULL 
 LIMIT $3::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET code_mac=$1::BYTEA WHERE pairings.id IN (SELECT batch.id 
FROM batch)
-- with NULL, '2026-11-25 20:31:44.407501+00', '1000'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.ended_at <= $1::TIMESTAMP WITH TIME ZONE 
 LIMIT $2::INTEGER FOR UPDATE SKIP LOCKED)
 DELETE FROM pairings WHERE pairings.id IN (SELECT batch.id 
FROM batch)
-- with '2026-10-26 20:41:44.407501+00', '1000'
;;
DELETE FROM attempts WHERE attempts.touched_at < $1::TIMESTAMP WITH TIME ZONE
-- with '2026-11-23 19:41:44.436322+00'
;;
DELETE FROM sessions WHERE sessions.seen_at < $1::TIMESTAMP WITH TIME ZONE
-- with '2025-11-25 20:41:44.436322+00'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id = $4::UUID AND (pairings.desktop_user = $5::VARCHAR OR pairings.mobile_user = $6::VARCHAR) AND pairings.ended_at IS NULL RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 19:41:44.474177+00', 'user', 'a1a1a1a1-5d5b-43d4-897a-98815058d4bc', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"duration_s": 1}, "count": 1, "event": "pairing.closed", "reason": "user", "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-2a5b-454c-bdee-1415c9c8c305", "severity": 6, "actor_kind": "user", "pairing_id": "a1a1a1a1-5d5b-43d4-897a-98815058d4bc", "request_id": "a1a1a1a1-6fc6-4aca-a79c-9dfec69342e9", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:44.474177+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": null}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at, users.password_hash 
FROM users 
WHERE users.username_key = $1::VARCHAR
-- with 'a1a1a1a1-alice'
;;
UPDATE users SET password_hash=$1::VARCHAR WHERE users.id = $2::UUID
-- with '$argon2id$none', 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"target": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f"}, "count": 1, "event": "account.password_changed", "reason": null, "address": null, "outcome": "success", "event_id": "a1a1a1a1-0dd3-4e77-a22d-ed2e01dd787c", "severity": 5, "actor_kind": "system", "pairing_id": null, "request_id": null, "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.658346+00:00", "actor_subject": null, "connection_id": null}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users ORDER BY users.username_key
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at, users.password_hash 
FROM users 
WHERE users.username_key = $1::VARCHAR
-- with 'a1a1a1a1-bob'
;;
UPDATE users SET disabled_at=$1::TIMESTAMP WITH TIME ZONE WHERE users.id = $2::UUID AND users.disabled_at IS NULL
-- with '2026-11-25 19:41:43.658346+00', 'a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"target": "a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d"}, "count": 1, "event": "account.disabled", "reason": null, "address": null, "outcome": "success", "event_id": "a1a1a1a1-cd7e-4138-ba56-16e9af2516ed", "severity": 5, "actor_kind": "system", "pairing_id": null, "request_id": null, "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.658346+00:00", "actor_subject": null, "connection_id": null}]'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state = $4::VARCHAR AND pairings.expires_at <= $5::TIMESTAMP WITH TIME ZONE 
 LIMIT $6::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state = $4::VARCHAR AND pairings.expires_at <= $5::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'expired', '2026-11-25 19:41:45.839773+00', 'expired', 'pending', '2026-11-25 19:41:45.839773+00', '1000'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state = $4::VARCHAR AND pairings.redeemed_at <= $5::TIMESTAMP WITH TIME ZONE 
 LIMIT $6::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state = $4::VARCHAR AND pairings.redeemed_at <= $5::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 19:41:45.839773+00', 'never_active', 'redeemed', '2026-11-25 19:36:45.839773+00', '1000'
;;
SELECT users.id 
FROM users 
WHERE users.id IN ($1::UUID) AND users.disabled_at IS NOT NULL
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
SELECT count(*) AS count_1 
FROM pairings 
WHERE pairings.ended_at IS NULL
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.state IN ($6::VARCHAR, $7::VARCHAR) AND pairings.seen_at <= $4::TIMESTAMP WITH TIME ZONE 
 LIMIT $5::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET state=$1::VARCHAR, ended_at=$2::TIMESTAMP WITH TIME ZONE, end_reason=$3::VARCHAR WHERE pairings.id IN (SELECT batch.id 
FROM batch) AND pairings.state IN ($6::VARCHAR, $7::VARCHAR) AND pairings.seen_at <= $4::TIMESTAMP WITH TIME ZONE RETURNING pairings.id, pairings.state, pairings.desktop_session, pairings.desktop_user, pairings.mobile_session, pairings.mobile_user, pairings.created_at, pairings.expires_at, pairings.redeemed_at, pairings.activated_at, pairings.ended_at, pairings.end_reason
-- with 'closed', '2026-11-25 19:41:45.885392+00', 'deserted', '2026-11-25 19:35:45.885392+00', '1000', 'active', 'waiting'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.ended_at <= $2::TIMESTAMP WITH TIME ZONE AND pairings.code_mac IS NOT NULL 
 LIMIT $3::INTEGER FOR UPDATE SKIP LOCKED)
 UPDATE pairings SET code_mac=$1::BYTEA WHERE pairings.id IN (SELECT batch.id 
FROM batch)
-- with NULL, '2026-11-25 19:31:45.89384+00', '1000'
;;
WITH batch AS 
(SELECT pairings.id AS id 
FROM pairings 
WHERE pairings.ended_at <= $1::TIMESTAMP WITH TIME ZONE 
 LIMIT $2::INTEGER FOR UPDATE SKIP LOCKED)
 DELETE FROM pairings WHERE pairings.id IN (SELECT batch.id 
FROM batch)
-- with '2026-10-26 19:41:45.89384+00', '1000'
;;
DELETE FROM attempts WHERE attempts.touched_at < $1::TIMESTAMP WITH TIME ZONE
-- with '2026-11-23 18:41:45.912294+00'
;;
DELETE FROM sessions WHERE sessions.seen_at < $1::TIMESTAMP WITH TIME ZONE
-- with '2025-11-25 19:41:45.912294+00'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at, users.password_hash 
FROM users 
WHERE users.username_key = $1::VARCHAR
-- with 'a1a1a1a1-bob'
;;
UPDATE users SET disabled_at=$1::TIMESTAMP WITH TIME ZONE WHERE users.id = $2::UUID AND users.disabled_at IS NOT NULL
-- with NULL, 'a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"target": "a1a1a1a1-9e3f-4365-8d50-de7ed4b7097d"}, "count": 1, "event": "account.enabled", "reason": null, "address": null, "outcome": "success", "event_id": "a1a1a1a1-2120-4e01-8d17-a23780f85aa1", "severity": 5, "actor_kind": "system", "pairing_id": null, "request_id": null, "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:43.658346+00:00", "actor_subject": null, "connection_id": null}]'
;;
SELECT users.id, users.username, users.role, users.created_at, users.disabled_at 
FROM users 
WHERE users.id = $1::UUID
-- with 'a1a1a1a1-a776-45bc-b793-6dc0836ab80f'
;;
INSERT INTO audit_events ("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs") SELECT "event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind", "reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id", "count", "attrs" FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS row ("event_id" UUID, "event" TEXT, "severity" SMALLINT, "outcome" TEXT, "occurred_at" TIMESTAMP WITH TIME ZONE, "node" TEXT, "app_version" TEXT, "actor_kind" TEXT, "reason" TEXT, "actor_subject" TEXT, "auth_method" TEXT, "address" INET, "request_id" UUID, "connection_id" UUID, "pairing_id" UUID, "count" INTEGER, "attrs" JSONB)
-- with '[{"node": "vm", "attrs": {"by": "server", "close_code": 4410, "duration_s": 2, "messages_in": 3}, "count": 1, "event": "ws.disconnected", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-fc99-4e0a-a010-fcdc2780f6d0", "severity": 6, "actor_kind": "device", "pairing_id": null, "request_id": "a1a1a1a1-9922-43f6-84e9-b42a82b8efdb", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:44.967725+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": "a1a1a1a1-deba-4d5d-b562-a0db65d1a156"}, {"node": "vm", "attrs": {"by": "server", "close_code": 4410, "duration_s": 2, "messages_in": 2}, "count": 1, "event": "ws.disconnected", "reason": null, "address": "127.0.0.1", "outcome": "success", "event_id": "a1a1a1a1-aed7-4926-ab43-b37b628a23a6", "severity": 6, "actor_kind": "device", "pairing_id": null, "request_id": "a1a1a1a1-d3a1-4431-ba88-f56c0ebc3096", "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:44.967851+00:00", "actor_subject": "a1a1a1a1-a776-45bc-b793-6dc0836ab80f", "connection_id": "a1a1a1a1-2baf-4c01-aba8-87b477091760"}, {"node": "vm", "attrs": {}, "count": 1, "event": "system.stopping", "reason": null, "address": null, "outcome": "success", "event_id": "a1a1a1a1-7613-462e-950e-589b5306f368", "severity": 5, "actor_kind": "system", "pairing_id": null, "request_id": null, "app_version": "0.1.0", "auth_method": null, "occurred_at": "2026-11-25 19:41:44.967902+00:00", "actor_subject": null, "connection_id": null}]'
