"""Scripts for port numbers that nodes share: who has which, until when, and who may have it next.

Rule of this file: a number has one use over all nodes, and a use one number of a pool. Numbers are given by
the engine, each the next one behind that given last, so that what was given back last is given last. What an
engine that was emptied hears again carries the number of its last proof of life; the newest one stands, and a
device that is at a living node is newer than all. A node that is cut off serves its ports as long as they may
be its own (RedisDirectory.sure): none of them is another's meanwhile. Keys and records: redis_scripts.py.

Source: next/cluster.md section 5; fleet/leases.py, whose rules they are; ours.
"""

from revtunnel.cluster.redis_scripts import SHARED_PART

__all__ = ["CLAIM", "CLAIMED", "RELEASE"]

# of a claim: 1 pool, 2 serial, 3 offer, 4 touched, 5 node, 6 epoch, 7 keep, 8 rest, 9 fixed
_CLAIMS = (
    SHARED_PART
    + """
local function claim_of(port)
  local text = redis.call('HGET', P .. 'claims', port)
  if not text then return end
  local whole, claim = pcall(cjson.decode, text)
  if not whole or type(claim) ~= 'table' or #claim < 9 then return end
  for i = 1, 9 do
    if type(claim[i]) ~= ((i < 4 or i == 5) and 'string' or 'number') then return end
  end
  return claim
end
-- all nodes are to look at this port
local function note(port) redis.call('ZADD', P .. 'claimed', tick(), port) end
local function put_claim(port, claim)
  redis.call('HSET', P .. 'claims', port, cjson.encode(claim))
end
-- when its device was there last; false: it is there
local function last_of(claim)
  if claim[5] == '' then return claim[4] end
  local node = living(claim[5])
  if node and node[1] == claim[6] then return false end
  local heard = cjson.decode(redis.call('HGET', P .. 'heard', claim[5]) or '[0,0,0,0]')
  for i = 1, 3, 2 do
    if heard[i] == claim[6] then return math.max(claim[4], heard[i + 1]) end
  end
  return claim[4]
end
local function ports_of(serial) return cjson.decode(redis.call('HGET', P .. 'ports', serial) or '[]') end
local function put_ports(serial, ports)
  if #ports == 0 then redis.call('HDEL', P .. 'ports', serial)
  else redis.call('HSET', P .. 'ports', serial, cjson.encode(ports)) end
end
-- it is nobody's from that moment on, and rests
local function give_up(port, claim, at, rest)
  local left = {}
  for _, each in ipairs(ports_of(claim[2])) do
    if each ~= port then left[#left + 1] = each end
  end
  put_ports(claim[2], left)
  put_claim(port, {claim[1], '', '', at, '', 0, claim[7], rest or claim[8], 0})
  note(port)
end
local cut_off
-- whether a node that is away, and was not heard after that moment, may take a port for its former use still
local function believed(since, keep, now)
  if not cut_off then
    cut_off = {}
    for _, name in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do
      local heard = not living(name) and redis.call('HGET', P .. 'heard', name)
      if heard then cut_off[#cut_off + 1] = cjson.decode(heard)[2] end
    end
  end
  for _, heard in ipairs(cut_off) do
    if heard <= since and now <= heard + keep then return true end
  end
  return false
end
-- the claim of a port as it stands at this moment; nil: anybody may have it
local function standing(port, now)
  local claim = claim_of(port)
  if claim and claim[2] ~= '' then
    local last = last_of(claim)
    if last and now > last + claim[7] then
      give_up(port, claim, last + claim[7])
      claim = claim_of(port)
    end
  end
  if not claim then return end
  if claim[2] ~= '' or now <= claim[4] + claim[8] or believed(claim[4], claim[7], now) then return claim end
end
"""
)

# node, epoch, pool, serial, offer, wanted (0: any), the one that it had (0: none), whether its device is
# here, touched (0: a new claim; else it is said again), keep, rest, most ports of a device, fixed, ranges
# -> [port, serial, offer, touched] that stands, also if it is another's,
# or [] : no port is free, [0]: it has enough; "young"
CLAIM = (
    _CLAIMS
    + """
local no = stranger(ARGV[1], ARGV[2])
if no then return no end
local node, epoch, pool, serial, offer = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local wanted, before, here, touched = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1', tonumber(ARGV[9])
local keep, rest, most, fixed = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local ranges, now = cjson.decode(ARGV[14]), tick()
local again = touched > 0
local function holds(claim)
  claim[7], claim[8], claim[9] = keep, rest, fixed
  if here then claim[4], claim[5], claim[6] = now, node, epoch
  elseif again and claim[5] == '' then claim[4] = math.max(claim[4], touched) end
end
local function within(port)
  for _, range in ipairs(ranges) do
    if port >= range[1] and port <= range[2] then return true end
  end
  return false
end
local count, away, had = 0, nil, nil
for _, port in ipairs(ports_of(serial)) do
  local claim = standing(port, now)
  if claim and claim[1] == pool and claim[3] == offer then
    if within(port) and (wanted == 0 or wanted == port or again) then
      holds(claim)
      put_claim(port, claim)
      return cjson.encode({port, serial, offer, claim[4]})
    end
    if within(port) then had = {port, claim} else give_up(port, claim, now) end
  elseif claim and claim[9] == 0 then
    count = count + 1
    local last = last_of(claim)
    if last and (not away or last + claim[7] < away[2]) then away = {port, last + claim[7], claim} end
  end
end
if not again and redis.call('EXISTS', P .. 'young') == 1 then return '"young"' end
if fixed == 0 and not again and count >= most then
  if not away then return '[0]' end
else away = nil end
local function may_have(port)
  local claim = standing(port, now)
  if not claim then return true end
  -- ranges of its pool were changed
  local same = claim[1]:match('^%S+') == pool:match('^%S+')
  return same and claim[2] == serial and claim[3] == offer
end
local chosen
local function try(port)
  if not chosen and within(port) and may_have(port) then chosen = port end
end
if wanted > 0 then
  local claim = standing(wanted, now)
  local last = claim and claim[2] ~= '' and last_of(claim)
  if not claim or claim[2] == '' and (fixed == 1 or again) or again and last and (here or last < touched) then
    if claim and claim[2] ~= '' then give_up(wanted, claim, now) end
    chosen = wanted
  else try(wanted) end
  if not chosen then
    claim = claim_of(wanted)
    return cjson.encode({wanted, claim[2], claim[3], claim[4]})
  end
else
  if before > 0 then try(before) end
  local cursor = tonumber(redis.call('GET', P .. 'next:' .. pool) or '0')
  for lap = 1, 2 do
    for _, range in ipairs(ranges) do
      for port = range[1], range[2] do
        if chosen then break end
        if (lap == 1) == (port > cursor) then try(port) end
      end
    end
  end
  if chosen and chosen ~= before then redis.call('SET', P .. 'next:' .. pool, chosen) end
  if not chosen and away and away[3][8] == 0 and within(away[1]) and not believed(now, away[3][7], now) then
    chosen = away[1]
  end
  if not chosen then
    -- of a device that is away longest, and not only just
    local oldest
    for _, range in ipairs(ranges) do
      for port = range[1], range[2] do
        local claim = claim_of(port)
        local last = claim and claim[2] ~= '' and claim[9] == 0 and last_of(claim)
        if last and now > last + claim[8] and (not oldest or last < oldest)
            and not believed(now, claim[7], now) then
          oldest, chosen = last, port
        end
      end
    end
    if chosen then give_up(chosen, claim_of(chosen), now) end
  end
end
if not chosen then return '[]' end
-- what it had goes now that it has another one
if had then give_up(had[1], had[2], now) end
if away and away[1] ~= chosen then give_up(away[1], away[3], now) end
local old = claim_of(chosen)
if old and old[2] ~= '' then give_up(chosen, old, now) end
local claim = {pool, serial, offer, again and touched or now, '', 0, keep, rest, fixed}
holds(claim)
put_claim(chosen, claim)
local ports = ports_of(serial)
ports[#ports + 1] = chosen
put_ports(serial, ports)
note(chosen)
tell('all', {'claims'})
return cjson.encode({chosen, serial, offer, claim[4]})
"""
)

# node, epoch, port, serial, offer, rest -> whether it was that use's, and of no device at another node
RELEASE = (
    _CLAIMS
    + """
local no = stranger(ARGV[1], ARGV[2])
if no then return no end
local port = tonumber(ARGV[3])
local claim = claim_of(port)
if not claim or claim[2] ~= ARGV[4] or claim[3] ~= ARGV[5] then return 'false' end
if claim[5] ~= ARGV[1] and not last_of(claim) then return 'false' end
give_up(port, claim, tick(), tonumber(ARGV[6]))
tell('all', {'claims'})
return 'true'
"""
)

# node, epoch, number, limit
# -> [number of the last of these, [port, claim, or false] of each that changed behind that number]
CLAIMED = (
    _CLAIMS
    + """
local no = stranger(ARGV[1], ARGV[2])
if no then return no end
local now = tick()
local look = redis.call('HSCAN', P .. 'claims', redis.call('GET', P .. 'sweep') or '0', 'COUNT', 64)
redis.call('SET', P .. 'sweep', look[1])
for i = 1, #look[2], 2 do
  local port = look[2][i]
  if not standing(port, now) then redis.call('HDEL', P .. 'claims', port) end
end
local from = '(' .. ARGV[3]
local all = redis.call('ZRANGEBYSCORE', P .. 'claimed', from, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local found = {}
for i = 1, #all, 2 do
  found[#found + 1] = {tonumber(all[i]) or 0, claim_of(all[i]) or false}
end
return cjson.encode({all[#all] or ARGV[3], found})
"""
)
