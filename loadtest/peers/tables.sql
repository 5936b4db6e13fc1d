CREATE TABLE IF NOT EXISTS rooms (
  room_id text PRIMARY KEY, status text NOT NULL DEFAULT 'active',
  last_seq bigint NOT NULL DEFAULT 0, present int NOT NULL DEFAULT 0) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS people (
  room_id text, user_id text, user_name text NOT NULL, role text NOT NULL DEFAULT 'guest',
  identity text, joined_at timestamptz NOT NULL, left_at timestamptz, PRIMARY KEY (room_id, user_id));
CREATE TABLE IF NOT EXISTS events (
  room_id text, seq bigint, type text NOT NULL, at timestamptz NOT NULL, payload json NOT NULL,
  PRIMARY KEY (room_id, seq));
