-- $1 room, $2 guest, $3 name, $4 identity
WITH room AS (
  UPDATE rooms SET last_seq = last_seq + 1, present = present + 1
  WHERE room_id = $1 AND status = 'active' RETURNING last_seq, clock_timestamp() AS at
), person AS (
  INSERT INTO people (room_id, user_id, user_name, identity, joined_at)
  SELECT $1, $2, $3, $4, at FROM room
), event AS (
  INSERT INTO events (room_id, seq, type, at, payload)
  SELECT $1, last_seq, 'participant_joined', at,
    json_build_object('userId', $2::text, 'userName', $3::text, 'identity', $4::text) FROM room)
SELECT last_seq, at FROM room
