
-- === The exact log, in two ways: every charge with its millisecond. Registers: latest, the newest entry's time;
-- count0, what it holds; count1, how many entries there are; past, what to do when something is charged.

-- Frees what has left; `entry(n)` is the time and amount of the n-th oldest entry, the newest not among them.
local function leave(i, rule, now, total, entry)
  local gone = 0
  while gone < count1[i] do
    local at_ms, amount = entry(gone)
    if at_ms + rule.window_ms > now then
      break
    end
    total, gone = total - amount, gone + 1
  end
  if count0[i] > 0 and latest[i] + rule.window_ms <= now then
    total, count0[i] = total - count0[i], 0
  end
  used[i] = total
  return gone
end

local function wait_for(i, rule, now, weight, entry)
  local bearable, left = rule.max - weight, used[i]
  if bearable < 0 then
    return -1
  elseif left <= bearable then
    return 0
  end
  for n = 0, count1[i] - 1 do
    local at_ms, amount = entry(n)
    left = left - amount
    if left <= bearable then
      return max(at_ms + rule.window_ms - now, 0)
    end
  end
  return max(latest[i] + rule.window_ms - now, 0)
end

-- Whether a charge joins the newest entry: of the same time, of a time ahead of the clock, or since there are too
-- many. An entry counts at most three bytes.
local function joins(i, now)
  return count0[i] > 0 and (latest[i] >= now or count1[i] + 1 >= MAX_ENTRIES)
end

local function life(i, rule, now)
  return format('%d', latest[i] - now + rule.window_ms)
end

-- === The ring: a head of 23 bytes (entries that have left, entries written, total, the newest entry's time and
-- amount), then 9 bytes per older entry. Those that have left are cut off when they are the greater part.

local ring = {}
local LOG_HEAD, ENTRY = 23, 9

-- Reads entries in pieces.
local function reader(i, key)
  local from, piece = 0, ''
  return function(n)
    local place = (n - from) * ENTRY
    if place < 0 or place >= #piece then
      from = n
      local start = LOG_HEAD + (width[i] + n) * ENTRY
      piece, place = call('GETRANGE', key, start, start + 64 * ENTRY - 1), 0
    end
    return unpack('>I6I3', piece, place + 1)
  end
end

function ring.load(i, key, rule, now)
  local head = try('GETRANGE', key, 0, LOG_HEAD - 1)
  width[i], count1[i], used[i], latest[i], count0[i], found[i] = 0, 0, 0, 0, 0, false
  if #head == LOG_HEAD then
    local left, written, total, at_ms, amount = unpack('>I4I4I6I6I3', head)
    if at_ms <= now + rule.window_ms then
      width[i], count1[i], latest[i], count0[i], found[i] = left, written - left, at_ms, amount, true
      local gone = leave(i, rule, now, total, reader(i, key))
      width[i], count1[i] = left + gone, count1[i] - gone
    end
  end
  return used[i]
end

local function write_ring(i, key, rule, now, pushed)
  local left, written = width[i], width[i] + count1[i]
  local head = pack('>I4I4I6I6I3', left, written, used[i], latest[i], count0[i])
  if not found[i] then
    call('SET', key, head, 'PX', life(i, rule, now))
  elseif left > 64 and left > count1[i] then
    local rest = call('GETRANGE', key, LOG_HEAD + left * ENTRY, -1)
    local cut = pack('>I4I4I6I6I3', 0, count1[i], used[i], latest[i], count0[i])
    local whole = sub(rest, 1, (count1[i] - (pushed and 1 or 0)) * ENTRY) .. (pushed or '')
    call('SET', key, cut .. whole, 'PX', life(i, rule, now))
    width[i] = 0
  else
    call('SETRANGE', key, 0, head)
    if pushed then
      call('SETRANGE', key, LOG_HEAD + (written - 1) * ENTRY, pushed)
    end
    call('PEXPIRE', key, life(i, rule, now))
  end
  found[i] = true
end

function ring.charge(i, key, rule, now, here)
  local pushed
  if joins(i, now) then
    latest[i] = max(latest[i], now)
  else
    if count0[i] > 0 then
      pushed, count1[i] = pack('>I6I3', latest[i], count0[i]), count1[i] + 1
    end
    latest[i], count0[i] = now, 0
  end
  local more = min(here, MAX_COUNT - count0[i])
  count0[i], used[i] = count0[i] + more, used[i] + more
  write_ring(i, key, rule, now, pushed)
end

function ring.wait(i, rule, now, weight, key)
  return wait_for(i, rule, now, weight, reader(i, key))
end

-- === The sorted set: a member of 9 bytes per entry, scored by its time; the empty member's score is -1 - total.

local set = {}

local function set_reader(key)
  local from, piece = 0, {}
  return function(n)
    if n < from or n >= from + #piece then
      from, piece = n, call('ZRANGE', key, n + 1, n + 64)
    end
    return unpack('>I6I3', piece[n - from + 1])
  end
end

function set.load(i, key, rule, now)
  local total = call('ZSCORE', key, '')
  width[i], count1[i], used[i], latest[i], count0[i], found[i] = 0, 0, 0, 0, 0, false
  if total then
    local newest = call('ZRANGE', key, -1, -1)[1]
    local at_ms, amount = 0, 0
    if newest ~= '' then
      at_ms, amount = unpack('>I6I3', newest)
    end
    if at_ms <= now + rule.window_ms then
      latest[i], count0[i], found[i] = at_ms, amount, newest
      count1[i] = call('ZCARD', key) - 2
      width[i] = leave(i, rule, now, -1 - total, set_reader(key))
      count1[i] = count1[i] - width[i]
    else
      call('ZREMRANGEBYRANK', key, 0, -1)
    end
  end
  return used[i]
end

function set.charge(i, key, rule, now, here)
  call('ZREMRANGEBYSCORE', key, 0, now - rule.window_ms)
  width[i] = 0
  if joins(i, now) then
    call('ZREM', key, found[i])
    latest[i] = max(latest[i], now)
  else
    count1[i] = count1[i] + (count0[i] > 0 and 1 or 0)
    latest[i], count0[i] = now, 0
  end
  local more = min(here, MAX_COUNT - count0[i])
  count0[i], used[i] = count0[i] + more, used[i] + more
  found[i] = pack('>I6I3', latest[i], count0[i])
  call('ZADD', key, -1 - used[i], '', latest[i], found[i])
  call('PEXPIRE', key, life(i, rule, now))
end

function set.wait(i, rule, now, weight, key)
  local skip, read = width[i], set_reader(key)
  return wait_for(i, rule, now, weight, function(n) return read(n + skip) end)
end

-- === What both do alike: nothing goes ahead, so that nothing is handed back; what is declared goes to the last
-- millisecond of its slot.

local function nowhere() end
ring.reach, set.reach, ring.credit, set.credit = nowhere, nowhere, nowhere, nowhere

-- Reads all entries, adds one, and writes them all: this is rare.
local function raise_with(entries_of, write)
  return function(i, key, rule, now, at_ms, more)
    local slot = min(floor(at_ms / rule.slot_ms), floor(now / rule.slot_ms))
    local entries, holds = entries_of(i, key), 0
    for _, entry in ipairs(entries) do
      if floor(entry[1] / rule.slot_ms) == slot then
        holds = holds + entry[2]
      end
    end
    more = more(slot, holds)
    local last = (slot + 1) * rule.slot_ms - 1
    if more <= 0 or last + rule.window_ms <= now then
      return
    end
    local place = #entries + 1
    for n, entry in ipairs(entries) do
      if entry[1] >= last then
        place = n
        break
      end
    end
    local same = entries[place] and entries[place][1] == last
    if same then
      more = min(more, MAX_COUNT - entries[place][2])
      entries[place][2] = entries[place][2] + more
    else
      more = min(more, MAX_COUNT)
      table.insert(entries, place, { last, more })
    end
    used[i] = used[i] + more
    write(i, key, rule, now, entries)
  end
end

local function entries_with(read)
  return function(i, key)
    local entries, entry = {}, read(i, key)
    for n = 0, count1[i] - 1 do
      entries[#entries + 1] = { entry(n) }
    end
    if count0[i] > 0 then
      entries[#entries + 1] = { latest[i], count0[i] }
    end
    return entries
  end
end

ring.raise = raise_with(entries_with(reader), function(i, key, rule, now, entries)
  local older = {}
  for n = 1, #entries - 1 do
    older[n] = pack('>I6I3', entries[n][1], entries[n][2])
  end
  local newest = entries[#entries]
  latest[i], count0[i], count1[i], width[i] = newest[1], newest[2], #entries - 1, 0
  local head = pack('>I4I4I6I6I3', 0, count1[i], used[i], latest[i], count0[i])
  call('SET', key, head .. table.concat(older), 'PX', life(i, rule, now))
  found[i] = true
end)

local function skipping(i, key)
  local skip, read = width[i], set_reader(key)
  return function(n) return read(n + skip) end
end

set.raise = raise_with(entries_with(skipping), function(i, key, rule, now, entries)
  call('ZREMRANGEBYRANK', key, 0, -1)
  for _, entry in ipairs(entries) do
    found[i] = pack('>I6I3', entry[1], entry[2])
    call('ZADD', key, entry[1], found[i])
  end
  local newest = entries[#entries]
  latest[i], count0[i], count1[i], width[i] = newest[1], newest[2], #entries - 1, 0
  call('ZADD', key, -1 - used[i], '')
  call('PEXPIRE', key, life(i, rule, now))
end)
