# The multiplex messages (docs/spec/channels.md §3). Ordinals, types, union
# order and defaults are the wire; names, ids and comments are not.
@0xc9b1d4f2a65e3807;

using Go = import "/go.capnp";
$Go.package("muxcap");
$Go.import("github.com/parley-p2p/parley/wire/internal/muxcap");

struct MultiplexMessage {
  union {
    msgError @0 :MsgError;
    msgChannelCreate @1 :MsgChannelCreate;
    msgChannelClose @2 :UInt32;
    msgChannelMessage @3 :MsgChannelMessage;
    msgRelayRequest @4 :Void;
    msgRelayAccept @5 :Void;
    msgChannelWindow @6 :MsgChannelWindow; # from here on: parley's additions
    msgRelayTerms @7 :MsgRelayTerms;
    msgHello @8 :MsgHello;
  }
}

struct MsgError {
  channelId @0 :UInt32;
  errorCode @1 :ErrorCode;
  errorText @2 :Text;
}

enum ErrorCode {
  unknown @0;
  badChannelId @1;
  badSpaceHash @2;
  badToId @3;
  badFromId @4;
  limit @5; # from here on: parley's additions
  relayRefused @6;
  relayExpired @7;
}

struct MsgChannelCreate {
  channelId @0 :UInt32;
  spaceHash @1 :Data;
  toId @2 :Data;
  fromId @3 :Data;
  fromProof @4 :Data; # from here on: parley's additions
  window @5 :UInt32;
  hops @6 :UInt8;
}

struct MsgChannelMessage {
  channelId @0 :UInt32;
  content @1 :Data;
}

struct MsgChannelWindow {
  channelId @0 :UInt32;
  add @1 :UInt32;
  toProof @2 :Data;
}

struct MsgRelayTerms {
  expireMs @0 :UInt64;
  maxCircuits @1 :UInt32;
  maxBytes @2 :UInt64;
  maxMs @3 :UInt64;
}

struct MsgHello {
  nonce @0 :Data;
  features @1 :UInt64;
  initialWindow @2 :UInt32;
  maxContent @3 :UInt32;
  maxChannels @4 :UInt32;
}
