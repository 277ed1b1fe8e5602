# The messages of a space's system channel (docs/spec/gossip.md §2). Ordinals,
# types, union order and defaults are the wire; names, ids and comments are not.
@0xe07a915c3bd2468f;

using Go = import "/go.capnp";
$Go.package("p2pcap");
$Go.import("github.com/parley-p2p/parley/wire/internal/p2pcap");

struct P2pMessage {
  union {
    msgError @0 :MsgError;
    msgHandshake @1 :MsgHandshake;
    msgGspArcRequest @2 :MsgGspArc;
    msgGspArcResponse @3 :MsgGspArc;
    msgGspAspectDataRequest @4 :MsgGspAspectDataRequest;
    msgGspAspectDataResponse @5 :MsgGspAspectDataResponse;
    msgGspAspectBroadcast @6 :MsgGspAspectBroadcast;
    msgDirectRequest @7 :MsgDirect;
    msgDirectResponse @8 :MsgDirect;
    msgQueryRequest @9 :MsgQuery;
    msgQueryResponse @10 :MsgQuery;
    msgPing @11 :MsgPing;
    msgPong @12 :MsgPong;
    msgRecRoot @13 :MsgRecRoot; # from here on: parley's additions
    msgRecSketch @14 :MsgRecSketch;
    msgRecWant @15 :MsgRecWant;
    msgRecBusy @16 :MsgRecBusy;
    msgRecBookmark @17 :MsgRecBookmark;
  }
}

struct MsgError {
  errorCode @0 :ErrorCode;
  errorText @1 :Text;
}

enum ErrorCode {
  unknown @0;
}

struct MsgHandshake {
  storeArcRadius @0 :UInt32;
  queryArcRadius @1 :UInt32;
  features @2 :UInt64; # parley's addition
}

struct MsgGspArc {
  aspectConstraintArc @0 :AspectConstraintArc;
  aspectConstraintTime @1 :AspectConstraintTime;
  aspectConstraintCount @2 :AspectConstraintCount;
  aspectHashList @3 :List(AspectHashList);
}

struct MsgGspAspectDataRequest {
  aspectHashList @0 :List(AspectHashList);
}

struct MsgGspAspectDataResponse {
  aspectDataList @0 :List(AspectDataList);
}

struct MsgGspAspectBroadcast {
  aspectDataList @0 :List(AspectDataList);
}

struct AspectHashList {
  entryAddress @0 :Data;
  aspectHashList @1 :List(Data);
}

struct AspectDataList {
  entryAddress @0 :Data;
  aspectDataList @1 :List(Data);
}

struct AspectConstraintArc {
  arcStart @0 :UInt32;
  arcEnd @1 :UInt32;
}

struct AspectConstraintTime {
  gteEpochMs @0 :UInt64;
}

struct AspectConstraintCount {
  gteLocalCount @0 :UInt64;
}

struct MsgDirect {
  requestId @0 :Text;
  data @1 :Data;
}

struct MsgQuery {
  requestId @0 :Text;
  entryAddress @1 :Data;
  data @2 :Data;
}

struct MsgPing {
  sendEpochMs @0 :UInt64;
}

struct MsgPong {
  pingSendEpochMs @0 :UInt64;
  pingReceivedEpochMs @1 :UInt64;
}

struct MsgRecRoot {
  round @0 :UInt32;
  state @1 :UInt16;
  rootLo @2 :UInt64;
  rootHi @3 :UInt64;
  count @4 :UInt64;
  salt @5 :Data;
  pieces @6 :List(AspectConstraintArc);
}

struct MsgRecSketch {
  round @0 :UInt32;
  hour @1 :UInt32;
  first @2 :UInt32;
  count @3 :UInt64;
  rootLo @4 :UInt64;
  rootHi @5 :UInt64;
  cells @6 :Data;
}

struct MsgRecWant {
  round @0 :UInt32;
  cellsTo @1 :UInt32;
  want @2 :Data;
  have @3 :Data;
  list @4 :Data;
  listArc @5 :AspectConstraintArc;
  bits @6 :Data;
  listAfter @7 :Data;
  listMore @8 :Bool;
}

struct MsgRecBusy {
  round @0 :UInt32;
  retryMs @1 :UInt32;
  reason @2 :UInt16;
}

struct MsgRecBookmark {
  round @0 :UInt32;
  reply @1 :Bool;
  epoch @2 :UInt64;
  from @3 :UInt64;
  next @4 :UInt64;
  ackEpoch @5 :UInt64;
  ackNext @6 :UInt64;
  hashes @7 :Data;
}

# One aspect as it is signed and stored (gossip.md §5). Frozen.
struct AspectRecord {
  typeHint @0 :Text;
  publishTs @1 :UInt64;
  body @2 :Data;
  author @3 :Data;
  signature @4 :Data;
}
