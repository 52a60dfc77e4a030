"""What is kept in the engine, and the scripts that change it: one script a change, each whole or not at all.

Rule of this file: nothing in the engine is needed to rebuild the truth, which is the nodes'. Every number
that is compared (an epoch, a fence) is given by the engine: its milliseconds, made to grow where its clock
is set back. Nodes say how long ago something was, never when. A record is written only over a void one,
over one of the same link, or over an older fence, and taken away only by who wrote it. ::

    PREFIX is rt:CLUSTER:, values are JSON

    key            value                                               life
    clock          [the last number that was given, milliseconds that   for ever
                   the engine's own clock was behind it]
    era            the number at which the engine was empty             for ever
    young          it was emptied: who is not found may not have been   three leases, 30 s
                   told again yet                                      at least
    epoch:NODE     the run of NODE that counts                          for ever
    node:NODE      [epoch, address, state, devices, clients, version,   the lease: PX, kept by each renewal
                    agents, seal]
    nodes          sorted set: names of nodes by when they were heard   a day after that
    dev:SERIAL     [node, epoch, link, fence, wire]                     void without that epoch's node:NODE;
                                                                        a day after it was said last
    claims         hash: PORT to [pool, serial, offer, touched, node,   see below
                   epoch, keep, rest, fixed], of claim_scripts.py
    ports          hash: SERIAL to the ports that it has                while it has one
    claimed        sorted set: ports by the number of their last        for ever
                   change, also those that nobody has any more
    next:POOL      the number of it that was given last               for ever
    sweep          where the look for claims that are over goes on      for ever
    heard          hash: NODE to [epoch, when it was heard last, and    for ever
                   both of the run before]
    revoked        hash: what all nodes have to know, by its name:      until nobody has to: a year after
                   shared_records.py, sealed where nodes have a secret  its removal, or its end
    shared         sorted set: the names in revoked by their number     likewise
    used:NAME      the node that uses what is good once, or has         its own time
    to:NODE        channel: ["moved", serial, link, epoch], ["usurped", epoch]
    all            channel: ["claims"], ["nodes"], ["revoked"]: look again;
                   ["told", name, value]: shared_penalties.py

A claim of a device that is at a living node (``node``, ``epoch``) stands. Any other stands for ``keep``
milliseconds from the last proof of life: ``touched``, or, where its node is gone, when that was heard last.
Then its port is nobody's (serial "") and rests, for ``rest`` milliseconds.

Whom the engine has lost is told "lost" and renews; whose name a later run has is told "usurped" and ends.

All keys of one call begin with the same prefix, which is its only key; the rest is made from it in the
script, so that an engine that spreads keys over several masters (Redis Cluster) is none for us.

Source: next/cluster.md section 2; Redis documentation, "Scripting with Lua"; ours.
"""

__all__ = [
    "DROP",
    "FIND",
    "FORGET",
    "LEAVE",
    "PUBLISH",
    "REGISTER",
    "RENEW",
    "SHARE",
    "SHARED",
    "SHARED_PART",
    "SPEND",
]

SHARED_PART = """
local P = KEYS[1]
local function get(key) local v = redis.call('GET', P .. key); return v and cjson.decode(v) end
local function put(key, value) redis.call('SET', P .. key, cjson.encode(value)) end
-- milliseconds as tick gives them, and nothing written: an engine may be full
local function clock()
  local t, last = redis.call('TIME'), get('clock') or {0, 0}
  return math.max(t[1] * 1000 + math.floor(t[2] / 1000) + last[2], last[1])
end
-- milliseconds that never run backwards; floor: what somebody had of an engine that was emptied since.
-- Each is another one, so where many are asked for they run ahead, by a second at most: behind it the moment
local function tick(floor)
  local t = redis.call('TIME')
  local clock = get('clock') or {0, 0}
  local last = math.max(clock[1], floor or 0)
  local now = t[1] * 1000 + math.floor(t[2] / 1000) + clock[2]
  if last - now > 1000 then now, clock[2] = last, clock[2] + last - now end
  local given = math.max(now, last + 1)
  put('clock', {given, clock[2]})
  return given, now
end
local alive = {}
local function living(name)
  if alive[name] == nil then
    local node = get('node:' .. name)
    alive[name] = type(node) == 'table' and node
  end
  return alive[name]
end
-- the record of a serial and its node, unless it is void
local function place(serial)
  local at = get('dev:' .. serial)
  if type(at) ~= 'table' or type(at[1]) ~= 'string' then return end
  local node = tonumber(at[3]) and tonumber(at[4]) and living(at[1])
  if node and node[1] == at[2] then return at, node end
end
local function tell(channel, what) redis.call('PUBLISH', P .. channel, cjson.encode(what)) end
-- a node that has lost a device holds its ports no more
local function unhold(serial, node, epoch)
  for _, port in ipairs(cjson.decode(redis.call('HGET', P .. 'ports', serial) or '[]')) do
    local claim = cjson.decode(redis.call('HGET', P .. 'claims', port) or '[]')
    if claim[5] == node and claim[6] == epoch then
      claim[4], claim[5], claim[6] = tick(), '', 0
      redis.call('HSET', P .. 'claims', port, cjson.encode(claim))
    end
  end
end
-- why somebody may not change anything: an engine that was emptied does not know him, or a later run has his
-- name
local function stranger(node, epoch)
  local held = redis.call('GET', P .. 'epoch:' .. node)
  if held ~= epoch then return held and tonumber(held) > tonumber(epoch) and '"usurped"' or '"lost"' end
end
"""


# node, epoch (0: begin a run), floor, milliseconds, most nodes, address, state, devices, clients, version,
# agents, seal -> [epoch, whether the lease was there, nodes, number in shared, era, number in claimed]
RENEW = (
    SHARED_PART
    + """
local node, epoch, floor = ARGV[1], ARGV[2], tonumber(ARGV[3])
local held = redis.call('GET', P .. 'epoch:' .. node)
if epoch ~= '0' and held and tonumber(held) > tonumber(epoch) then return '"usurped"' end
if not living(node) then
  local others = 0
  for _, name in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do
    if name ~= node and living(name) then others = others + 1 end
  end
  if others >= tonumber(ARGV[5]) then return '"crowded"' end
end
local era = redis.call('GET', P .. 'era')
if not era then
  era = string.format('%.0f', tick(floor))
  redis.call('SET', P .. 'era', era)
end
if epoch ~= '0' and not held then redis.call('SET', P .. 'young', 1, 'PX', math.max(30000, 3 * ARGV[4])) end
if epoch == '0' then
  epoch = string.format('%.0f', tick(math.max(floor, tonumber(held or 0))))
  if held then tell('to:' .. node, {'usurped', tonumber(epoch)}) end
end
local was = living(node)
if not was or was[1] ~= tonumber(epoch) or was[3] ~= ARGV[7] then tell('all', {'nodes'}) end
local kept = was and was[1] == tonumber(epoch) and held == epoch
local said = {tonumber(epoch), ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), unpack(ARGV, 10)}
local key = P .. 'node:' .. node
-- an engine that is full takes no value, but a longer life for one
if not (kept and redis.call('PEXPIRE', key, ARGV[4]) == 1 and cjson.encode(was) == cjson.encode(said)) then
  if held ~= epoch then redis.call('SET', P .. 'epoch:' .. node, epoch) end
  local answer = redis.pcall('SET', key, cjson.encode(said), 'PX', ARGV[4])
  if answer.err and not kept then return redis.error_reply(answer.err) end
end
local t = redis.call('TIME')
redis.pcall('ZADD', P .. 'nodes', t[1], node)
local heard = cjson.decode(redis.call('HGET', P .. 'heard', node) or '[0,0,0,0]')
if heard[1] ~= tonumber(epoch) then heard = {tonumber(epoch), 0, heard[1], heard[2]} end
heard[2] = clock()
redis.pcall('HSET', P .. 'heard', node, cjson.encode(heard))
redis.call('ZREMRANGEBYSCORE', P .. 'nodes', '-inf', t[1] - 86400)
alive = {}
local nodes = {}
for _, name in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do
  nodes[#nodes + 1] = {name, living(name)}
end
local newest = redis.call('ZRANGE', P .. 'shared', -1, -1, 'WITHSCORES')
local claimed = redis.call('ZRANGE', P .. 'claimed', -1, -1, 'WITHSCORES')
return cjson.encode({tonumber(epoch), kept or false, nodes, newest[2] or '0', era, claimed[2] or '0'})
"""
)

# node, epoch -> whether it was ours to take away
LEAVE = (
    SHARED_PART
    + """
if stranger(ARGV[1], ARGV[2]) then return 'false' end
redis.call('DEL', P .. 'node:' .. ARGV[1])
redis.call('ZREM', P .. 'nodes', ARGV[1])
tell('all', {'nodes'})
return 'true'
"""
)

# node, epoch, floor, then serial, link, wire, fence (0: none yet), milliseconds since it came, of each
# -> for each {"fence": ...} or {"at": the record that stands, with its address}; "usurped"
REGISTER = (
    SHARED_PART
    + """
local node, epoch = ARGV[1], tonumber(ARGV[2])
local no = stranger(node, ARGV[2])
if no then return no end
local _, now = tick(tonumber(ARGV[3]))
local answers = {}
for i = 4, #ARGV, 5 do
  local serial, link, fence = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 3])
  local at, holder = place(serial)
  local ours = at and at[1] == node
  if fence == 0 then
    fence = ours and at[3] == link and at[4] or now - tonumber(ARGV[i + 4])
    -- both came in one millisecond, and this one is heard last
    if at and not ours and fence == at[4] then fence = fence + 1 end
  end
  if not at or (ours and at[3] <= link) or (not ours and at[4] < fence) then
    local record = cjson.encode({node, epoch, link, fence, ARGV[i + 2]})
    redis.call('SET', P .. 'dev:' .. serial, record, 'EX', 86400)
    if at and not ours then
      unhold(serial, at[1], at[2])
      tell('to:' .. at[1], {'moved', serial, at[3], at[2]})
    end
    answers[#answers + 1] = {fence = fence}
  else
    answers[#answers + 1] = {at = {at, holder[2]}}
  end
end
return cjson.encode(answers)
"""
)

# node, epoch, then serial and link of each, that one or older -> how many were its own
DROP = (
    SHARED_PART
    + """
local dropped = 0
for i = 3, #ARGV, 2 do
  local at = get('dev:' .. ARGV[i])
  if at and at[1] == ARGV[1] and at[2] == tonumber(ARGV[2]) and at[3] <= tonumber(ARGV[i + 1]) then
    redis.call('DEL', P .. 'dev:' .. ARGV[i])
    unhold(ARGV[i], at[1], at[2])
    dropped = dropped + 1
  end
end
return cjson.encode(dropped)
"""
)

# node, epoch, serial -> [record, address], or false; "young": nobody knows yet
FIND = (
    SHARED_PART
    + """
local at, node = place(ARGV[3])
if at then return cjson.encode({at, node[2]}) end
return stranger(ARGV[1], ARGV[2]) or redis.call('EXISTS', P .. 'young') == 1 and '"young"' or 'false'
"""
)

# node, epoch, whether only what is missing is written, then ID and value of each -> how many were written
SHARE = (
    SHARED_PART
    + """
local no = stranger(ARGV[1], ARGV[2])
if no then return no end
local written = 0
for i = 4, #ARGV, 2 do
  if ARGV[3] == '0' or redis.call('HEXISTS', P .. 'revoked', ARGV[i]) == 0 then
    redis.call('HSET', P .. 'revoked', ARGV[i], ARGV[i + 1])
    redis.call('ZADD', P .. 'shared', tick(), ARGV[i])
    written = written + 1
  end
end
if written > 0 then tell('all', {'revoked'}) end
return cjson.encode(written)
"""
)

# node, epoch, number, limit -> [number of the last of these, [ID, value] of each behind that number]
SHARED = (
    SHARED_PART
    + """
local no = stranger(ARGV[1], ARGV[2])
if no then return no end
local from = '(' .. ARGV[3]
local all = redis.call('ZRANGEBYSCORE', P .. 'shared', from, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local found = {}
for i = 1, #all, 2 do
  found[#found + 1] = {all[i], redis.call('HGET', P .. 'revoked', all[i]) or 'null'}
end
return cjson.encode({all[#all] or ARGV[3], found})
"""
)

# node, epoch, IDs -> how many were there
FORGET = (
    SHARED_PART
    + """
for i = 3, #ARGV do redis.call('ZREM', P .. 'shared', ARGV[i]) end
return cjson.encode(redis.call('HDEL', P .. 'revoked', unpack(ARGV, 3)))
"""
)

# node, epoch, name, milliseconds -> whether no other node has used it; who did not hear that may ask again.
# "young": nobody knows
SPEND = (
    SHARED_PART
    + """
local no = stranger(ARGV[1], ARGV[2])
if no then return no end
if redis.call('EXISTS', P .. 'young') == 1 then return '"young"' end
local key = P .. 'used:' .. ARGV[3]
if redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[4]) then return 'true' end
return redis.call('GET', key) == ARGV[1] and 'true' or 'false'
"""
)

# node, epoch, name, value -> true; all nodes hear it that are there
PUBLISH = (
    SHARED_PART
    + """
local no = stranger(ARGV[1], ARGV[2])
if no then return no end
tell('all', {'told', ARGV[3], ARGV[4]})
return 'true'
"""
)
