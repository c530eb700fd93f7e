-- === A UTC day: the day (4 bytes) and what was charged on it (4).

local day = {}

function day.load(i, key, rule, now)
  local raw = try('GET', key)
  local today = floor(now / DAY_MS)
  found[i], latest[i], used[i] = false, today, 0
  if raw and #raw == 8 then
    local of, total = unpack('>I4I4', raw)
    if of == today or of == today + 1 then
      found[i], latest[i], used[i] = raw, of, total
    end
  end
  return used[i]
end

function day.reach(i, rule, now, hold)
  return floor(now / DAY_MS) == latest[i] and floor((now + hold) / DAY_MS) == latest[i] and 0 or nil
end

function day.charge(i, key, rule, now, here, ahead)
  used[i] = min(used[i] + here + ahead, 0xFFFFFFFF)
  if found[i] then
    call('SETRANGE', key, '4', pack('>I4', used[i]))
  else
    local life = (latest[i] + 1) * DAY_MS - now + 1000
    call('SET', key, pack('>I4I4', latest[i], used[i]), 'PX', format('%d', life))
  end
end

function day.wait(i, rule, now, weight)
  if rule.max < weight then
    return -1
  end
  return used[i] + weight <= rule.max and 0 or max((latest[i] + 1) * DAY_MS - now, 0)
end

function day.credit(i, key, rule, now, at_ms, hold, amount)
  if found[i] and floor(at_ms / DAY_MS) == latest[i] then
    day.charge(i, key, rule, now, -min(amount, used[i]), 0)
  end
end

function day.raise(i, key, rule, now, at_ms, more)
  if floor(at_ms / DAY_MS) == latest[i] then
    more = more(latest[i], used[i])
    if more > 0 then
      day.charge(i, key, rule, now, more, 0)
      found[i] = true
    end
  end
end

-- === GCRA: when (6 bytes, ms) and the level (7), in passes times the window's milliseconds.

local gcra = {}

-- What has not drained; a window after the last charge nothing counts.
local function level(i, rule, now)
  local elapsed = now - latest[i]
  if elapsed < 0 then
    return -elapsed > rule.window_ms and 0 or count0[i]
  end
  return elapsed >= rule.window_ms and 0 or max(count0[i] - elapsed * rule.max, 0)
end

function gcra.load(i, key, rule, now)
  local raw = try('GET', key)
  latest[i], count0[i] = now, 0
  if raw and #raw == 13 then
    latest[i], count0[i] = unpack('>I6I7', raw)
  end
  used[i] = min(ceil(level(i, rule, now) / rule.window_ms), 0xFFFFFFFF)
  return used[i]
end

function gcra.reach()
  return nil
end

local function pour(i, rule, now, amount)
  local higher = min(level(i, rule, now) + amount * rule.window_ms, 2 ^ 52)
  local still = latest[i] - now <= rule.window_ms
  latest[i], count0[i] = still and max(latest[i], now) or now, higher
  used[i] = min(ceil(level(i, rule, now) / rule.window_ms), 0xFFFFFFFF)
end

local function keep(i, key, rule, now)
  local life = format('%d', latest[i] - now + rule.window_ms)
  call('SET', key, pack('>I6I7', latest[i], count0[i]), 'PX', life)
end

function gcra.charge(i, key, rule, now, here)
  pour(i, rule, now, here)
  keep(i, key, rule, now)
end

function gcra.wait(i, rule, now, weight)
  local bearable = (rule.max - weight) * rule.window_ms
  local left = level(i, rule, now)
  if rule.max < weight then
    return -1
  elseif left <= bearable then
    return 0
  end
  local drained = max(latest[i], now) + ceil((left - bearable) / rule.max)
  return max(min(drained, latest[i] + rule.window_ms) - now, 0)
end

function gcra.credit() end

-- All that was declared, from nothing, slot by slot; the higher level counts.
function gcra.raise(i, key, rule, now, at_ms, more, sums)
  local slot = min(floor(at_ms / rule.slot_ms), floor(now / rule.slot_ms))
  more(slot, 0)
  local order = {}
  for known in pairs(sums) do
    order[#order + 1] = known
  end
  table.sort(order)
  local before, at_before, count_before = level(i, rule, now), latest[i], count0[i]
  latest[i], count0[i] = 0, 0
  for _, known in ipairs(order) do
    pour(i, rule, min((known + 1) * rule.slot_ms - 1, now), sums[known][2])
  end
  local replayed = level(i, rule, now)
  if replayed > before then
    latest[i], count0[i] = now, replayed
    keep(i, key, rule, now)
  else
    latest[i], count0[i] = at_before, count_before
  end
end
