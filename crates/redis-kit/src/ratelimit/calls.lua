
-- === The functions.

local KINDS = { [0] = slots, slots, ring, set, gcra, day }
local AT_ONCE = 1

-- A request's limits as they are written: 13 bytes each (kind, limit, a slot's and the window's milliseconds).
local shapes, shape_count = {}, 0

local function shape_of(text)
  local shape = shapes[text]
  if shape then
    return shape
  end
  shape = {}
  for from = 1, #text, 13 do
    local kind, most, slot_ms, window_ms = unpack('>BI4I4I4', text, from)
    local own = KINDS[kind]
    shape[#shape + 1] = {
      max = most, slot_ms = slot_ms, window_ms = window_ms, at_once = kind == AT_ONCE, own = own,
      load = own.load, charge = own.charge, wait = own.wait, reach = own.reach,
      -- A slot more than a record in sub-buckets needs, as text: Redis need not print it.
      life = format('%d', (RING + 1) * slot_ms),
    }
  end
  if shape_count >= REMEMBERED then
    shapes, shape_count = {}, 0
  end
  shapes[text], shape_count = shape, shape_count + 1
  return shape
end

-- What is asked of them: cost, who waits, how many ahead, divisor, hold (4 bytes each), whether it is forced (1).
local asks, ask_count = {}, 0

local function ask_of(text)
  local ask = asks[text]
  if ask then
    return ask
  end
  local cost, waiting, ahead, divisor, hold, forced = unpack('>I4I4I4I4I4B', text)
  ask = {
    cost = cost, weight = max(cost, 1), waiting = max(waiting, 1), ahead = ahead,
    divisor = max(divisor, 1), hold = hold, forced = forced == 1,
  }
  if ask_count >= REMEMBERED then
    asks, ask_count = {}, 0
  end
  asks[text], ask_count = ask, ask_count + 1
  return ask
end

local run, settled

-- Milliseconds and whether the store has settled. The first call of all begins the run.
local function begin()
  if not call then
    call, try, pack, unpack = redis.call, redis.pcall, struct.pack, struct.unpack
    byte, sub, rep, gsub, format = string.byte, string.sub, string.rep, string.gsub, string.format
    min, max, floor, ceil = math.min, math.max, math.floor, math.ceil
    NOTHING = rep('\0', SLOTS)
  end
  local time = call('TIME')
  local now_us = time[1] * 1000000 + time[2]
  run = run or now_us
  settled = settled or now_us < run or now_us - run >= SETTLE_US
  return floor(now_us / 1000)
end

-- How many of those who wait may pass, and how many passes go ahead.
local function grant(shape, ask, now)
  if ask.forced then
    return ask.waiting, 0
  end
  local weight, least = ask.weight, 0xFFFFFFFF
  for i = 1, #shape do
    local room = shape[i].max - used[i]
    if room < least then
      least = room
    end
  end
  local fitting = floor(max(least, 0) / weight)
  if ask.cost == 0 then
    return fitting > 0 and ask.waiting or 0, 0
  elseif fitting < ask.waiting then
    return fitting, 0
  elseif ask.ahead == 0 then
    return ask.waiting, 0
  end
  for i = 1, #shape do
    if not shape[i].reach(i, shape[i], now, ask.hold) then
      return ask.waiting, 0
    end
  end
  local part = floor(floor((least - ask.waiting * weight) / ask.divisor) / weight)
  return ask.waiting, min(ask.ahead, part)
end

-- An answer is one string, since many numbers of their own cost their reader more than the rest of a decision: now (6
-- bytes), run (8) and 0 (1), then numbers of 4 bytes each.
local form, numbers = '>I6I8B', {}

-- A wait in four bytes: one of more than 49 days is told as 49 days.
local function wait_of(rule, i, now, weight, key)
  local ms = rule.wait(i, rule, now, weight, key)
  return ms < 0 and NEVER or min(ms, NEVER - 1)
end

local function answer(now, filled)
  while #form < 6 + 2 * filled do
    form = form .. rep('I4', 512)
  end
  return pack(sub(form, 1, 6 + 2 * filled), now, run, 0, spread(numbers, 1, filled))
end

-- KEYS: one per limit, those of a request together. ARGV: the run that the asker knows or 0, then per request its
-- limits and what is asked. Reply: now, run, 0 (1: another run, 2: not settled; nothing was charged), then per request
-- who may pass, how many ahead, and per limit: used, free_in (ms; the greatest number: never), and unless all may
-- pass: pass_in.
local function take(keys, args)
  local now = begin()
  local known = tonumber(args[1])
  if known ~= 0 and known ~= run then
    return pack('>I6I8B', now, run, 1)
  elseif not settled then
    return pack('>I6I8B', now, run, 2)
  end
  local filled, key = 0, 0
  for n = 2, #args, 2 do
    local shape, ask = shape_of(args[n]), ask_of(args[n + 1])
    for i = 1, #shape do
      local rule = shape[i]
      rule.load(i, keys[key + i], rule, now)
    end
    local waiting, ahead = grant(shape, ask, now)
    numbers[filled + 1], numbers[filled + 2], filled = waiting, ahead, filled + 2
    local charged, all = ask.cost > 0 and waiting > 0, waiting == ask.waiting
    for i = 1, #shape do
      local rule = shape[i]
      if charged then
        rule.charge(i, keys[key + i], rule, now, ask.cost * waiting, ask.cost * ahead, ask.hold)
      end
      numbers[filled + 1] = used[i] < NEVER and used[i] or NEVER
      numbers[filled + 2] = used[i] < rule.max and 0 or wait_of(rule, i, now, 1, keys[key + i])
      filled = filled + 2
      if not all then
        filled = filled + 1
        numbers[filled] = wait_of(rule, i, now, ask.weight, keys[key + i])
      end
    end
    key = key + #shape
  end
  return answer(now, filled)
end

-- KEYS as for a take. ARGV: the run of the take, then per return its limits and what is given back (cost, passes: 4
-- bytes each; when it was taken: 6; hold: 4). Another run's is ignored.
local function give_back(keys, args)
  local now = begin()
  if tonumber(args[1]) ~= run then
    return 0
  end
  local key = 0
  for n = 2, #args, 2 do
    local shape = shape_of(args[n])
    local cost, passes, at_ms, hold = unpack('>I4I4I6I4', args[n + 1])
    for i, rule in ipairs(shape) do
      rule.load(i, keys[key + i], rule, now)
      rule.own.credit(i, keys[key + i], rule, now, at_ms, hold, cost * passes)
    end
    key = key + #shape
  end
  return 1
end

-- KEYS: per declaration the window and its side record. ARGV: the run that it is declared to, then per declaration
-- its limit and its charges (when: 6 bytes, how much: 4). A slot then holds the greater of what it had when the
-- first declaration of it came and of the sum of all of them; what was charged since stays on top.
local function declare(keys, args)
  local now = begin()
  if tonumber(args[1]) ~= run then
    return 0
  end
  for n = 2, #args, 2 do
    local key, side = keys[n - 1], keys[n]
    local rule, charges = shape_of(args[n])[1], args[n + 1]
    local raw = call('GET', side)
    local sums = raw and cmsgpack.unpack(raw) or {}
    for from = 1, #charges, 10 do
      local at_ms, amount = unpack('>I6I4', charges, from)
      rule.load(1, key, rule, now)
      rule.own.raise(1, key, rule, now, at_ms, function(slot, had)
        local sum = sums[slot] or { had, 0 }
        local before = max(sum[2] - sum[1], 0)
        sum[2] = sum[2] + amount
        sums[slot] = sum
        return max(sum[2] - sum[1], 0) - before
      end, sums)
    end
    local life = rule.own == day and format('%d', DAY_MS) or rule.life
    call('SET', side, cmsgpack.pack(sums), 'PX', life)
  end
  return 1
end

-- KEYS: the record of the living, where it is on this server. ARGV: the sidecar's name. Reply: now, run, how many
-- sidecars live (0 without the key).
local function pulse(keys, args)
  local now, live = begin(), 0
  if keys[1] then
    call('ZADD', keys[1], now, args[1])
    call('ZREMRANGEBYSCORE', keys[1], '-inf', now - ALIVE_MS)
    call('PEXPIRE', keys[1], 2 * ALIVE_MS)
    live = call('ZCARD', keys[1])
  end
  return { now, run, live, settled and 1 or 0 }
end

redis.register_function('gatehouse_rl_@DIGEST@_take', take)
redis.register_function('gatehouse_rl_@DIGEST@_give_back', give_back)
redis.register_function('gatehouse_rl_@DIGEST@_declare', declare)
redis.register_function('gatehouse_rl_@DIGEST@_pulse', pulse)
