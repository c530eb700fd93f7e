#!lua name=gatehouse_rl
-- The decision of a rate limit: the same sums as crates/ratelimit (window.rs, decision.rs), atomically over all
-- limits of one tenant, by Redis' clock alone. A denial or a peek writes nothing.
--
-- KEYS: one per limit, all with the tenant's hash tag.
-- ARGV: cost, then per limit: the most its window may hold, a slot's length in milliseconds.
-- Reply: now (ms), 1 or 0, then per limit: used, free_in (ms, -1 never), pass_in (ms, -1 never).
--
-- A key's value: the latest slot (5 bytes), the total (3 bytes), a ring of 61 counts (3 bytes each): 191 bytes.
-- Sidecars of two versions run side by side during an upgrade: another meaning of the arguments, the reply or the
-- value needs another library and function name.

local SLOTS = 60
local RING = SLOTS + 1
local HEADER = 8
local SIZE = HEADER + 3 * RING

-- Position of a slot's count within the ring, from 1.
local function position(slot)
  return 3 * (slot % RING) + 1
end

local function count(ring, slot)
  local at = position(slot)
  local high, mid, low = string.byte(ring, at, at + 2)
  return high * 65536 + mid * 256 + low
end

local function with_count(ring, slot, value)
  local at = position(slot)
  return string.sub(ring, 1, at - 1) .. struct.pack('>I3', value) .. string.sub(ring, at + 3)
end

-- Reads a window and forgets what has left it. A clock that steps back stands still; a record more than a window
-- ahead of the clock was written by a wrong one and is dropped, as is a value that is not ours.
local function load(key, slot_ms, now)
  local current = math.floor(now / slot_ms)
  local raw = redis.call('GET', key)
  local latest, total
  if raw and #raw == SIZE then
    latest, total = struct.unpack('>I5I3', raw)
  end
  if not latest or math.abs(current - latest) >= RING then
    return { latest = current, total = 0, ring = string.rep('\0', 3 * RING) }
  end
  local ring = string.sub(raw, HEADER + 1)
  for slot = latest + 1, current do
    local freed = count(ring, slot)
    if freed > 0 then
      total = total - freed
      ring = with_count(ring, slot, 0)
    end
  end
  return { latest = math.max(latest, current), total = total, ring = ring }
end

-- Milliseconds until `weight` fits under `max`, when nothing else is charged.
local function wait(window, slot_ms, now, max, weight)
  if weight > max then
    return -1
  end
  local left = window.total
  if left + weight <= max then
    return 0
  end
  for slot = window.latest - SLOTS, window.latest do
    left = left - count(window.ring, slot)
    if left + weight <= max then
      return math.max((slot + RING) * slot_ms - now, 0)
    end
  end
  return -1
end

local function check(keys, args)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local cost = tonumber(args[1])
  local weight = math.max(cost, 1)
  local windows, allowed = {}, true
  for i, key in ipairs(keys) do
    local max, slot_ms = tonumber(args[2 * i]), tonumber(args[2 * i + 1])
    local window = load(key, slot_ms, now)
    window.max, window.slot_ms = max, slot_ms
    windows[i] = window
    allowed = allowed and window.total + weight <= max
  end
  local reply = { now, allowed and 1 or 0 }
  for i, window in ipairs(windows) do
    local pass_in = allowed and 0 or wait(window, window.slot_ms, now, window.max, weight)
    if allowed and cost > 0 then
      window.total = window.total + cost
      local charged = count(window.ring, window.latest) + cost
      window.ring = with_count(window.ring, window.latest, charged)
      local value = struct.pack('>I5I3', window.latest, window.total) .. window.ring
      redis.call('SET', keys[i], value, 'PX', (RING + 1) * window.slot_ms)
    end
    reply[3 * i] = window.total
    reply[3 * i + 1] = wait(window, window.slot_ms, now, window.max, 1)
    reply[3 * i + 2] = pass_in
  end
  return reply
end

redis.register_function('gatehouse_rl_check', check)
