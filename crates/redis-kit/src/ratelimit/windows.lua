#!lua name=gatehouse_rl_@DIGEST@
-- Limits in Redis: the same sums as crates/ratelimit (model.rs and the windows beneath it), atomically over all
-- limits of a request, by Redis' clock alone. What is not granted writes nothing.
--
-- A kind of limit is four functions over register `i`: load(i, key, rule, now) reads it and says what is used;
-- charge(i, key, rule, now, here, ahead, hold) writes; wait(i, rule, now, weight) says for how many milliseconds
-- `weight` will not fit (-1 for ever); and for what a lease or a declaration changes, see the end of each kind.
--
-- The library lives as long as the server's process: `run` names that life, so that sidecars see that data may be
-- gone. It is loaded under a name of its own digest and never replaced: a load cannot begin a new run, and two
-- versions can be used side by side. The layout of values is recognised by its length; what is not ours is dropped.

local SLOTS, LEAVES, RING = 60, 61, 63
local MAX_COUNT = 0xFFFFFF
local MAX_ENTRIES = 65536
local DAY_MS = 86400000
-- Microseconds after the beginning of a run in which nothing is charged: sidecars declare what they had charged.
local SETTLE_US = 1000000
-- A sidecar that was not seen for longer is not alive, in milliseconds.
local ALIVE_MS = 2000
-- Parsed arguments that are remembered.
local REMEMBERED = 512

-- The greatest number of four bytes: a wait that does not end, as it is told.
local NEVER = 0xFFFFFFFF

-- Lua's own `unpack`; below the name is another's.
local function spread(list, from, to)
  return unpack(list, from, to)
end

-- Redis gives these to functions alone, not to a library that is being loaded.
local call, try, byte, sub, rep, gsub, format, pack, unpack, min, max, floor, ceil, NOTHING

-- Registers of the limits of one request, by position.
local used, found, width, latest, past = {}, {}, {}, {}, {}
local count0, count1, count2 = {}, {}, {}

-- === Sub-buckets: latest slot (5 bytes), total (4), the current slot and the two ahead of it (3 each), then the 60
-- slots before it in a ring of 1, 2 or 3 bytes each. Within a slot only the head is written.

local HEAD = 18
local WIDTH = { [HEAD + SLOTS] = 1, [HEAD + 2 * SLOTS] = 2, [HEAD + 3 * SLOTS] = 3 }
local MOST = { 0xFF, 0xFFFF, MAX_COUNT }

-- The count of a slot in a ring.
local function at(ring, w, slot)
  local place = slot % SLOTS * w
  if w == 1 then
    return byte(ring, place + 1)
  elseif w == 2 then
    local high, low = byte(ring, place + 1, place + 2)
    return high * 256 + low
  end
  local high, mid, low = byte(ring, place + 1, place + 3)
  return high * 65536 + mid * 256 + low
end

-- The ring with another count of a slot, and its width, which grows where it must.
local function with(ring, w, slot, value)
  while value > MOST[w] do
    ring = gsub(ring, rep('.', w), '\0%0')
    w = w + 1
  end
  local place = slot % SLOTS * w
  return sub(ring, 1, place) .. pack('>I' .. w, value) .. sub(ring, place + w + 1), w
end

-- The ring without `n` slots from `slot` on, and what they held.
local function without(ring, w, slot, n)
  local from, freed = slot % SLOTS, 0
  while n > 0 do
    local here = min(n, SLOTS - from)
    for i = 0, here - 1 do
      freed = freed + at(ring, w, from + i)
    end
    ring = sub(ring, 1, from * w) .. rep('\0', here * w) .. sub(ring, (from + here) * w + 1)
    n, from = n - here, 0
  end
  return ring, freed
end

local slots = {}

-- A clock that steps back stands still; a record more than a window ahead of it was written by a wrong one.
function slots.load(i, key, rule, now)
  local raw = try('GET', key)
  local slot_ms = rule.slot_ms
  local current = (now - now % slot_ms) / slot_ms
  local w = raw and WIDTH[#raw]
  if w then
    local newest, total, a, b, c = unpack('>I5I4I3I3I3', raw)
    local steps = current - newest
    if steps > -RING and steps < RING then
      local ring
      if steps > 0 then
        ring = sub(raw, HEAD + 1)
        if total == a + b + c then
          -- Nothing lies behind: nothing leaves, unless it is beyond the window itself.
          ring, w = NOTHING, 1
          if steps < LEAVES and a > 0 then ring, w = with(ring, w, newest, a) else total = total - a end
          if steps > 1 then
            if steps < LEAVES + 1 and b > 0 then ring, w = with(ring, w, newest + 1, b) else total = total - b end
          end
          if steps > 2 and c > 0 then ring, w = with(ring, w, newest + 2, c) end
        else
          for ahead = 0, min(steps, 3) - 1 do
            local value = ahead == 0 and a or ahead == 1 and b or c
            local old = at(ring, w, newest + ahead)
            total = total - old
            if old ~= value then
              ring, w = with(ring, w, newest + ahead, value)
            end
          end
          if steps > 3 then
            local freed
            ring, freed = without(ring, w, newest + 3, steps - 3)
            total = total - freed
          end
        end
        a = steps == 1 and b or steps == 2 and c or 0
        b = steps == 1 and c or 0
        c, newest = 0, current
      end
      found[i], past[i], width[i], latest[i] = raw, ring or false, w, newest
      used[i], count0[i], count1[i], count2[i] = total, a, b, c
      return total
    end
  end
  found[i], past[i], width[i], latest[i] = false, NOTHING, 1, current
  used[i], count0[i], count1[i], count2[i] = 0, 0, 0, 0
  return 0
end

-- Within a slot the expiry that its first charge set is late enough: a slot more than the record needs.
local function store(i, key, rule)
  if past[i] then
    local head = pack('>I5I4I3I3I3', latest[i], used[i], count0[i], count1[i], count2[i])
    call('SET', key, head .. past[i], 'PX', rule.life)
  else
    call('SETRANGE', key, '5', pack('>I4I3I3I3', used[i], count0[i], count1[i], count2[i]))
  end
end

-- Adds to the current slot or one of the two ahead; a count stops at three bytes.
local function add(i, ahead, amount)
  local counts = ahead == 0 and count0 or ahead == 1 and count1 or count2
  local more = min(amount, MAX_COUNT - counts[i])
  counts[i] = counts[i] + more
  used[i] = used[i] + more
end

-- How many slots ahead what is used within `hold` is booked; nil when it cannot be.
function slots.reach(i, rule, now, hold)
  local slot = floor((now + (rule.at_once and 0 or hold)) / rule.slot_ms)
  local current = floor(now / rule.slot_ms)
  return current == latest[i] and slot - current < 3 and slot - current or nil
end

function slots.charge(i, key, rule, now, here, ahead, hold)
  add(i, 0, here)
  if ahead > 0 then
    add(i, slots.reach(i, rule, now, hold), ahead)
  end
  store(i, key, rule)
end

function slots.wait(i, rule, now, weight)
  local bearable, left = rule.max - weight, used[i]
  if bearable < 0 then
    return -1
  elseif left <= bearable then
    return 0
  end
  local ring, w, newest = past[i] or sub(found[i], HEAD + 1), width[i], latest[i]
  for slot = newest - SLOTS, newest + 2 do
    if slot < newest then
      left = left - at(ring, w, slot)
    else
      left = left - (slot == newest and count0[i] or slot == newest + 1 and count1[i] or count2[i])
    end
    if left <= bearable then
      return max((slot + LEAVES) * rule.slot_ms - now, 0)
    end
  end
  return -1
end

-- What a slot holds; nil when the window does not cover it.
local function held(i, slot)
  local ahead = slot - latest[i]
  if ahead < -SLOTS or ahead > 2 then
    return nil
  elseif ahead >= 0 then
    return ahead == 0 and count0[i] or ahead == 1 and count1[i] or count2[i]
  end
  return at(past[i] or sub(found[i], HEAD + 1), width[i], slot)
end

-- Sets what a slot holds.
local function hold_now(i, slot, value)
  local before, ahead = held(i, slot), slot - latest[i]
  past[i] = past[i] or sub(found[i], HEAD + 1)
  if ahead >= 0 then
    local counts = ahead == 0 and count0 or ahead == 1 and count1 or count2
    counts[i] = value
  else
    past[i], width[i] = with(past[i], width[i], slot, value)
  end
  used[i] = used[i] + value - before
end

function slots.credit(i, key, rule, now, at_ms, hold, amount)
  local slot = floor((at_ms + (rule.at_once and 0 or hold)) / rule.slot_ms)
  local holds = held(i, slot)
  if found[i] and holds and holds > 0 then
    hold_now(i, slot, max(holds - amount, 0))
    store(i, key, rule)
  end
end

function slots.raise(i, key, rule, now, at_ms, more)
  local slot = min(floor(at_ms / rule.slot_ms), latest[i] + 2)
  local holds = held(i, slot)
  if holds then
    more = more(slot, holds)
    if more > 0 then
      hold_now(i, slot, min(holds + more, MAX_COUNT))
      store(i, key, rule)
    end
  end
end

