/* parley 0.1.0, the page's side. MIT License. Types: parley.d.ts. Source: client/src. */
var codes=["malformed","unknown-method","no-peer","peer-in-use","not-found","unreachable","not-started","already-started","reserved","too-la\
rge","queue-full","limit","timeout","closed","refused","unauthorized","forbidden","cancelled","unsupported","session-lost","network-blocked",
"internal","unknown","bad-channel-id","bad-space-hash","bad-to-id","bad-from-id","relay-refused","relay-expired","not-joined","lost"],ParleyError=class extends Error{code;retryAfter;constructor(code,message,options={}){
super(message||code,"cause"in options?{cause:options.cause}:void 0),this.name="ParleyError",this.code=code,this.retryAfter=options.retryAfter}};function givenUp(signal){let cause=signal.reason,timedOut=cause instanceof Error&&cause.name==="TimeoutError";return new ParleyError(timedOut?
"timeout":"cancelled",timedOut?"no answer in time":"the call was given up",{cause})}function onAbort(signal,callback){return signal?.addEventListener(
"abort",callback),()=>signal?.removeEventListener("abort",callback)}function orGivenUp(promise,signal){return signal?new Promise((resolve,reject)=>{
let abort=()=>(done(),reject(givenUp(signal))),done=onAbort(signal,abort);signal.aborted&&abort(),promise.then(resolve,reject).finally(done)}):
promise}var subprotocol="parley.v2",grantPrefix="parley.grant.";var levels=["queued","delivered","handled","stored"];var openTimeout=3e4;function nodeUrl(given){if(given!==void 0){let url=new URL(given,pageOrigin());return url.protocol=url.protocol.replace(
/^http/,"ws"),url.pathname==="/"&&(url.pathname="/ws"),url}let origin=pageOrigin();if(!origin)throw new ParleyError("malformed","outside of \
a page connect() needs the node's url");return new URL(origin.replace(/^http/,"ws")+"/ws")}function pageOrigin(){let{location,origin}=globalThis;
return[location?.origin,origin].find(o=>o?.startsWith("http"))}async function dial(url,options,signal){let token=typeof options.token=="func\
tion"?await options.token():options.token;signal.throwIfAborted();let grant=isElsewhere(url)?grantFor(url):void 0,offer=grant?[subprotocol,grantPrefix+
grant]:[subprotocol],socket=await makeSocket(url,options.WebSocket,token,offer);socket.binaryType="arraybuffer";let failure=await opened(socket,
signal);if(failure===void 0)return socket;throw signal.throwIfAborted(),await explain(url,failure)}async function makeSocket(url,given,token,offer){
let headers=token?{Authorization:`Bearer ${token}`}:void 0,inNode=!!globalThis.process?.versions?.node,Global=globalThis.WebSocket;try{if(given)
return new given(url.href,offer,headers&&{headers});if(Global&&inNode)return new Global(url.href,{protocols:offer,headers});if(Global)return new Global(
url.href,offer);let Ws=await importWs("ws");return new Ws(url.href,offer,{headers,perMessageDeflate:!1})}catch(cause){if(cause instanceof ParleyError)
throw cause;let code=cause.name==="SecurityError"?"network-blocked":"malformed";throw new ParleyError(code,cause.message,{cause})}}async function importWs(name){
try{return(await import(name)).default}catch(cause){throw new ParleyError("unsupported","this Node.js has no WebSocket: use Node.js 22, inst\
all the package ws, or pass connect({ WebSocket })",{cause})}}function opened(socket,signal){return new Promise(resolve=>{let text="",done=failure=>{
clearTimeout(timer),signal.removeEventListener("abort",gaveUp),socket.onopen=socket.onerror=socket.onclose=null,failure!==void 0&&(socket.onerror=
()=>{},socket.close()),resolve(failure)},gaveUp=()=>done("given up"),timer=setTimeout(()=>done("no answer in time"),openTimeout);signal.addEventListener(
"abort",gaveUp),socket.onopen=()=>done(),socket.onerror=event=>text=event.message??"",socket.onclose=()=>done(text),signal.aborted&&gaveUp()})}
async function explain(url,text){let advice=await blocked(url);if(advice)return new ParleyError("network-blocked",`the browser does not let \
this page reach ${url.host}: ${advice}`);switch(Number(/\b(?:response|status)\b\D*(\d{3})\b/i.exec(text)?.[1])||await askStatus(url)){case 401:case 429:
return new ParleyError("unauthorized","the node does not know this page: open the link that it printed when it started",{retryAfter:15e3});case 403:case 421:
return new ParleyError("forbidden","the node does not let this page in");case 503:return new ParleyError("limit","the node is overloaded",{retryAfter:5e3})}
return new ParleyError("unreachable",`no node answers at ${url.host}`+(text&&`: ${text}`))}async function askStatus(url){let http=url.href.replace(
/^ws/,"http");if(!pageOrigin()||new URL(http).origin!==pageOrigin())return 0;try{return(await fetch(http,{cache:"no-store",signal:AbortSignal.
timeout(3e3)})).status}catch{return 0}}async function blocked(url){let{navigator,location}=globalThis;if(!(!location||!isLocal(url.hostname)||
isLocal(location.hostname))){if(globalThis.isSecureContext===!1)return"only pages over https may ask for it";for(let name of["local-network-\
access","loopback-network","local-network"])try{if((await navigator?.permissions.query({name}))?.state==="denied")return"allow it to use the\
 local network in the site's settings"}catch{}}}function isLocal(host){return/^(localhost|\[::1\]|127(\.\d+){3}|10(\.\d+){3}|192\.168(\.\d+){2}|172\.(1[6-9]|2\d|3[01])(\.\d+){2}|169\.254(\.\d+){2})$/.
test(host)||/\.(localhost|local)$/.test(host)||/^\[f[cd]/.test(host)}function isElsewhere(url){let origin=pageOrigin();return origin!==void 0&&origin!==httpOf(url).origin}function grantFor(url,ask){try{let kept=JSON.
parse(localStorage.getItem(place(url))??"null");return kept&&(!ask||kept.asked===query(ask).toString())?kept.token:void 0}catch{return}}function forgetGrant(url){
try{localStorage.removeItem(place(url))}catch{}}async function askPerson(url,ask,signal){let open=globalThis.open;if(!open)throw new ParleyError(
"forbidden","the person must be asked first, and a worker has no window for it: connect in its page");let params=query(ask);params.set("orig\
in",pageOrigin()??"");let http=httpOf(url),shown=open(`${http.origin}/_parley/consent?${params}`,"_blank","popup,width=560,height=640");if(!shown)
throw new ParleyError("forbidden","the person must be asked first, and the browser opens no window for it: call connect() from a click");let token=await answer(
shown,http.origin,signal);try{localStorage.setItem(place(url),JSON.stringify({token,asked:query(ask).toString()}))}catch(cause){throw new ParleyError(
"forbidden","the answer can not be kept: the browser allows this page no storage",{cause})}}function answer(shown,origin,signal){return new Promise(
(resolve,reject)=>{let end=how=>{clearInterval(timer),removeEventListener("message",told),signal?.removeEventListener("abort",gaveUp),how()},
gaveUp=()=>{shown.close(),end(()=>reject(givenUp(signal)))},told=({origin:from,data})=>{from!==origin||data?.parley!=="consent"||(data.allowed?
end(()=>resolve(String(data.token))):end(()=>reject(new ParleyError("forbidden","the person did not allow it"))))},closed=0,timer=setInterval(
()=>{shown.closed&&++closed>2&&end(()=>reject(new ParleyError("forbidden","the person closed the question")))},300);addEventListener("messag\
e",told),signal?.addEventListener("abort",gaveUp),signal?.aborted&&gaveUp()})}function query({protocols=[],topics=[],storage=0}){let params=new URLSearchParams;
for(let name of protocols)params.append("protocol",name);for(let name of topics)params.append("topic",name);return storage&&params.set("stor\
age",`${storage}`),params}function httpOf(url){return new URL(url.href.replace(/^ws/,"http"))}function place(url){return`parley grant ${url.
host}`}var maxDepth=68,maxItems=131072,embeddedJson=262,encoder=new TextEncoder,decoder=new TextDecoder("utf-8",{fatal:!0,ignoreBOM:!0}),malformed=(text,cause)=>new ParleyError(
"malformed",text,cause===void 0?{}:{cause});function encode(value){return scratch.reset(),writeValue(scratch,value,0),scratch.take()}var Writer=class{#bytes=new Uint8Array(
4096);#view=new DataView(this.#bytes.buffer);#at=0;reset(){this.#at=0}take(){let out=this.#bytes.slice(0,this.#at);return this.#bytes.length>
1<<20&&(this.#bytes=new Uint8Array(4096),this.#view=new DataView(this.#bytes.buffer)),out}#room(n){if(this.#at+n<=this.#bytes.length)return;
let bigger=new Uint8Array(Math.max(this.#bytes.length*2,this.#at+n));bigger.set(this.#bytes.subarray(0,this.#at)),this.#bytes=bigger,this.#view=
new DataView(bigger.buffer)}byte(b){this.#room(1),this.#bytes[this.#at++]=b}head(major,n){this.#room(9);let m=major<<5;n<24?this.#bytes[this.#at++]=
m|n:n<256?(this.#bytes[this.#at++]=m|24,this.#bytes[this.#at++]=n):n<65536?(this.#bytes[this.#at++]=m|25,this.#view.setUint16(this.#at,n),this.#at+=
2):n<4294967296?(this.#bytes[this.#at++]=m|26,this.#view.setUint32(this.#at,n),this.#at+=4):(this.#bytes[this.#at++]=m|27,this.#view.setUint32(
this.#at,Math.floor(n/4294967296)),this.#view.setUint32(this.#at+4,n>>>0),this.#at+=8)}float(n){this.#room(9),this.#bytes[this.#at++]=251,this.#view.
setFloat64(this.#at,n),this.#at+=8}bytes(b){this.head(2,b.length),this.raw(b)}raw(b){this.#room(b.length),this.#bytes.set(b,this.#at),this.#at+=
b.length}text(s){let start=this.#at;this.#room(9+s.length*3),this.head(3,s.length);let from=this.#at;if(s.length<40&&this.#ascii(s))return;let{
written}=encoder.encodeInto(s,this.#bytes.subarray(from));written!==s.length&&(this.#bytes.copyWithin(start+headSize(written),from,from+written),
this.#at=start,this.head(3,written)),this.#at+=written}#ascii(s){let from=this.#at;for(let i=0;i<s.length;i++){let c=s.charCodeAt(i);if(c>127)
return!1;this.#bytes[from+i]=c}return this.#at=from+s.length,!0}},headSize=n=>n<24?1:n<256?2:n<65536?3:5,scratch=new Writer;function writeValue(w,value,depth){
switch(typeof value){case"string":return w.text(value);case"number":return writeNumber(w,value);case"boolean":return w.byte(value?245:244);case"\
undefined":return w.byte(246);case"object":return value===null?w.byte(246):writeObject(w,value,depth)}throw malformed(`data can't hold a ${typeof value}`)}
function writeNumber(w,n){if(Number.isSafeInteger(n)&&!Object.is(n,-0))n>=0?w.head(0,n):w.head(1,-1-n);else if(Number.isFinite(n))w.float(n);else
throw malformed(`data can't hold ${n}`)}function writeObject(w,value,depth){if(ArrayBuffer.isView(value))return w.bytes(new Uint8Array(value.
buffer,value.byteOffset,value.byteLength));if(value instanceof ArrayBuffer)return w.bytes(new Uint8Array(value));if(depth>=maxDepth)throw malformed(
`data is nested deeper than ${maxDepth} levels`);if(Array.isArray(value)){limitItems(value.length),w.head(4,value.length);for(let item of value)
writeValue(w,item,depth+1);return}let json=value.toJSON;if(typeof json=="function"){let plain=json.call(value);if(plain!==value)return writeValue(
w,plain,depth+1)}if(value instanceof Map||value instanceof Set)throw malformed(`data can't hold a ${value.constructor.name}: use a plain obj\
ect or an array`);let entries=Object.entries(value).filter(([,v])=>v!==void 0);limitItems(entries.length),w.head(5,entries.length);for(let[name,
v]of entries)w.text(name),writeValue(w,v,depth+1)}function limitItems(n){if(n>maxItems)throw malformed(`data has ${n} items in one array or \
object, limit ${maxItems}`)}function*decodeFrames(bytes){let r=new Reader(bytes);for(;r.more;){let start=r.at,parts=r.value(0);if(!Array.isArray(
parts))throw malformed("a frame is not an array");let kind=parts[0];if(typeof kind!="number"||!Number.isSafeInteger(kind)||kind<0)throw malformed(
"a frame has no kind");yield{kind,parts:parts.slice(1),size:r.at-start}}}function decode(bytes){let r=new Reader(bytes),value=r.value(0);if(r.
more)throw malformed("bytes behind the value");return value}var Reader=class{at=0;#bytes;#view;constructor(bytes){this.#bytes=bytes,this.#view=
new DataView(bytes.buffer,bytes.byteOffset,bytes.byteLength)}get more(){return this.at<this.#bytes.length}value(depth){let first=this.#byte(),
major=first>>5,info=first&31;switch(major){case 0:return this.#number(info);case 1:return-1-this.#number(info);case 2:return new Uint8Array(
this.#take(this.#number(info)));case 3:return this.#text(this.#number(info));case 4:return this.#array(this.#count(info,depth,1),depth);case 5:
return this.#map(this.#count(info,depth,2),depth);case 6:return this.#tagged(info)}return this.#simple(info)}#need(n){if(n>this.#bytes.length-
this.at)throw malformed("the frame ends too early")}#byte(){return this.#need(1),this.#bytes[this.at++]}#take(n){return this.#need(n),this.#bytes.
subarray(this.at,this.at+=n)}#number(info){if(info<24)return info;if(info>27)throw malformed("indefinite lengths are not allowed");let size=1<<
info-24;this.#need(size);let at=this.at;switch(this.at+=size,info){case 24:return this.#bytes[at];case 25:return this.#view.getUint16(at);case 26:
return this.#view.getUint32(at)}return this.#view.getUint32(at)*4294967296+this.#view.getUint32(at+4)}#count(info,depth,each){if(depth>=maxDepth)
throw malformed(`nested deeper than ${maxDepth} levels`);let n=this.#number(info);if(n>maxItems)throw malformed(`more than ${maxItems} items`);
return this.#need(n*each),n}#text(n){let bytes=this.#take(n);if(n<24){let s="",i=0;for(;i<n&&bytes[i]<128;i++)s+=String.fromCharCode(bytes[i]);
if(i===n)return s}try{return decoder.decode(bytes)}catch(cause){throw malformed("text is not valid UTF-8",cause)}}#array(n,depth){let out=new Array(
n);for(let i=0;i<n;i++)out[i]=this.value(depth+1);return out}#map(n,depth){let out={};for(let i=0;i<n;i++){let first=this.#byte();if(first>>
5!==3)throw malformed("a key is not text");let name=this.#text(this.#number(first&31));if(Object.hasOwn(out,name))throw malformed("a key is \
there twice");let value=this.value(depth+1);name==="__proto__"?Object.defineProperty(out,name,{value,enumerable:!0,configurable:!0,writable:!0}):
out[name]=value}return out}#tagged(info){if(this.#number(info)!==embeddedJson)throw malformed("an unknown tag");let first=this.#byte();if(first>>
5!==2)throw malformed("embedded JSON is not a byte string");let text=this.#text(this.#number(first&31));try{return JSON.parse(text)}catch(cause){
throw malformed("embedded JSON is not JSON",cause)}}#simple(info){switch(info){case 20:return!1;case 21:return!0;case 22:return null;case 25:
return finite(half(this.#number(25)));case 26:return this.#need(4),finite(this.#view.getFloat32((this.at+=4)-4));case 27:return this.#need(8),
finite(this.#view.getFloat64((this.at+=8)-8))}throw malformed("an unknown simple value")}};function finite(n){if(!Number.isFinite(n))throw malformed(
"a number that is not finite");return n}function half(bits){let sign=bits&32768?-1:1,exponent=bits>>10&31,fraction=bits&1023;return exponent===
0?sign*fraction*2**-24:exponent===31?fraction?NaN:sign*(1/0):sign*(1+fraction/1024)*2**(exponent-15)}var Fifo=class{#items=[];#head=0;get length(){return this.#items.length-this.#head}get first(){return this.#items[this.#head]}push(item){this.#items.
push(item)}prepend(items){this.#items=[...items,...this],this.#head=0}shift(){let item=this.#items[this.#head];return this.length&&(this.#items[this.#head++]=
void 0),this.#head>64&&this.#head*2>this.#items.length&&(this.#items.splice(0,this.#head),this.#head=0),item}remove(item){let at=this.#items.
indexOf(item,this.#head);at>=0&&this.#items.splice(at,1)}*[Symbol.iterator](){for(let i=this.#head;i<this.#items.length;i++)yield this.#items[i]}};var callCost=256,Calls=class{#writer;#maxQueue;#lanes=new Map;#ready=new Set;#under=new Map;#limits={frame:0,message:0,requests:0,outbox:0,outboxTotal:0};#nextId=1;#waitingBytes=0;#underBytes=0;#closed;constructor(writer,maxQueue){
this.#writer=writer,this.#maxQueue=maxQueue}call(spec){return new Promise((resolve,reject)=>{if(this.#closed)return reject(this.#closed);if(spec.
signal?.aborted)return reject(givenUp(spec.signal));let id=this.#nextId++,frame=spec.frame(id);if(this.#waitingBytes+frame.length+callCost>this.#maxQueue)
return reject(new ParleyError("queue-full",`${this.#maxQueue} bytes are waiting in this page already`));let call={id,lane:this.#lane(spec.lane),
frame,cost:frame.length+callCost,size:frame.length-(spec.around??frame.length),repeat:!!spec.repeat,written:0,settle:void 0},abort=()=>this.#giveUp(
call,givenUp(spec.signal));spec.signal?.addEventListener("abort",abort),call.settle=(error,result)=>{call.settle=void 0,spec.signal?.removeEventListener(
"abort",abort),error?reject(error):resolve(result)};let{lane}=call;lane.waiting.push(call),this.#waitingBytes+=call.cost,this.#ready.add(lane),
lane.waiting.length===1&&this.#writer.online&&this.#room(lane,call)&&this.#write(lane)})}answered(id,error,result){let call=this.#under.get(
id);call&&(this.#end(call),call.settle?.(error,result),this.#pump())}online(limits){this.#limits=limits,this.#pump()}lost(sent){let again=new Map;
for(let call of this.#under.values())this.#end(call),call.settle&&(call.written>sent||call.repeat?again.set(call.lane.key,[...again.get(call.
lane.key)??[],call]):call.settle(new ParleyError("session-lost","the connection was away for too long: what became of this call is unknown")));
for(let[key,calls]of again){let lane=this.#lane(key);for(let call of calls)call.lane=lane,call.written=0,this.#waitingBytes+=call.cost;lane.
waiting.prepend(calls),this.#ready.add(lane)}}close(error){this.#closed=error;let calls=[...this.#under.values(),...[...this.#ready].flatMap(
lane=>[...lane.waiting])];this.#under.clear(),this.#lanes.clear(),this.#ready.clear();for(let call of calls)call.settle?.(error)}#lane(key){
let lane=this.#lanes.get(key);return lane||this.#lanes.set(key,lane={key,waiting:new Fifo,under:0,bytes:0}),lane}#pump(){for(let wrote=!0;wrote&&
this.#writer.online;){wrote=!1;for(let lane of this.#ready)this.#room(lane,lane.waiting.first)&&(this.#write(lane),wrote=!0)}}#write(lane){let call=lane.
waiting.shift();this.#waitingBytes-=call.cost,lane.waiting.length||this.#ready.delete(lane);let tooLarge=this.#tooLarge(call);if(tooLarge)return this.#forget(
lane),call.settle?.(tooLarge);lane.under++,lane.bytes+=call.cost,this.#underBytes+=call.cost,this.#under.set(call.id,call),call.written=this.#writer.
write(call.frame)}#room(lane,call){let{requests,outbox,outboxTotal}=this.#limits,free=requests-this.#under.size;return lane.key===""?free>0:
lane.under<free&&(lane.under===0||lane.bytes+call.cost<=outbox)&&(this.#underBytes===0||this.#underBytes+call.cost<=outboxTotal)}#tooLarge(call){
let{message,frame}=this.#limits;if(call.size>message)return new ParleyError("too-large",`message too large: ${call.size} bytes, limit ${message}`);
if(call.frame.length>frame)return new ParleyError("too-large",`frame too large: ${call.frame.length} bytes, limit ${frame}`)}#giveUp(call,error){
let{lane}=call;call.written?this.#writer.write(encode([19,call.id])):(lane.waiting.remove(call),this.#waitingBytes-=call.cost,lane.waiting.length||
this.#ready.delete(lane),this.#forget(lane)),call.settle?.(error),this.#pump()}#end(call){this.#under.delete(call.id),this.#underBytes-=call.
cost,call.lane.under--,call.lane.bytes-=call.cost,this.#forget(call.lane)}#forget(lane){!lane.under&&!lane.waiting.length&&this.#lanes.delete(
lane.key)}};function wireError(code,text,retryAfter){let known=codes.includes(code)?code:"internal";return new ParleyError(known,typeof text==
"string"?text:String(code),{retryAfter:typeof retryAfter=="number"?retryAfter:void 0})}var asyncDispose=Symbol.asyncDispose??Symbol.for("Symbol.asyncDispose");var Emitter=class extends EventTarget{#count=new Map;on(type,callback,options={}){let listener=event=>{try{let result=callback(event.detail);
result instanceof Promise&&result.catch(error=>this.failed(error,type))}catch(error){this.failed(error,type)}};return this.addEventListener(
type,listener,options.signal?{signal:options.signal}:{}),()=>this.removeEventListener(type,listener)}addEventListener(type,listener,options){
super.addEventListener(type,listener,options),this.#count.set(type,(this.#count.get(type)??0)+1),this.listening(type)}removeEventListener(type,listener,options){
super.removeEventListener(type,listener,options)}heard(type){return this.#count.has(type)}get listenedTo(){return this.#count.size>0}listening(_type){}failed(error,_type){
report(error)}emit(type,detail){this.heard(type)&&this.dispatchEvent(new CustomEvent(type,{detail}))}};function report(error){typeof reportError==
"function"?reportError(error):console.error(error)}var Inbox=class{#writer;#report;#listeners=new Map;#session=0;constructor(writer,report2){this.#writer=writer,this.#report=report2}has(protocol,handler){
let listener=this.#listeners.get(protocol);return listener!==void 0&&(handler===void 0||listener.handler===handler)}listen(protocol,handler,ended){
this.#listeners.set(protocol,{handler,ended,conversations:new Map})}unlisten(protocol,error){let listener=this.#listeners.get(protocol);this.#listeners.
delete(protocol),listener?.ended(error);for(let queue of listener?.conversations.values()??[])for(let d=queue.shift();d;d=queue.shift())this.#refuse(
d,"not-started","the protocol was stopped")}close(error){for(let{ended}of this.#listeners.values())ended(error)}lost(){this.#session++;for(let{
conversations}of this.#listeners.values())for(let queue of conversations.values())for(;queue.shift(););}message(parts){let[id,from,protocol,
data,flags]=parts,message={from,protocol,data,wantsReply:(flags&1)!==0},delivery={id,session:this.#session,message},listener=this.#listeners.
get(protocol);if(!listener)return this.#refuse(delivery,"not-started","the protocol was stopped");let queue=listener.conversations.get(from);
if(queue)return queue.push(delivery);this.#converse(listener,from,delivery)}async#converse(listener,from,first){let queue=new Fifo;listener.
conversations.set(from,queue);for(let d=first;d;d=queue.shift()){await this.#handle(listener.handler,d);let room=this.#writer.room();room&&await room}
listener.conversations.delete(from)}async#handle(handler,d){try{let reply=await handler(d.message);this.#settle(d,encode(d.message.wantsReply?
[26,d.id,reply]:[25,d.id]))}catch(error){this.#refuse(d,"refused",error instanceof Error?error.message:String(error)),error instanceof Refusal||
this.#report(error)}}#refuse(d,code,text){this.#settle(d,encode([27,d.id,code,text.slice(0,1024)]))}#settle(d,frame){d.session===this.#session&&
this.#writer.write(frame)}},Refusal=class extends Error{},Listening=class{#stop;#waiting=new Fifo;#asked=new Fifo;#current;#ended=!1;#error;constructor(stop){
this.#stop=stop}handle=message=>{let received=new Received(message),asked=this.#asked.shift();return asked?(this.#current=received,asked.resolve(
{done:!1,value:received})):this.#waiting.push(received),received.settled};next(){if(this.#current?.done(),this.#current=this.#waiting.shift(),
this.#current)return Promise.resolve({done:!1,value:this.#current});if(this.#error){let{error}=this.#error;return this.#error=void 0,Promise.
reject(error)}return this.#ended?Promise.resolve({done:!0,value:void 0}):new Promise((resolve,reject)=>this.#asked.push({resolve,reject}))}async return(){
return this.#current?.done(),this.end(),await this.#stop(),{done:!0,value:void 0}}end(error){if(this.#ended)return;this.#ended=!0;for(let received of this.#waiting)
received.refuse("the protocol was stopped");for(;this.#waiting.shift(););let asked=[...this.#asked];error!==void 0&&!asked.length&&(this.#error=
{error}),asked.forEach(({resolve,reject},i)=>{error!==void 0&&i===0?reject(error):resolve({done:!0,value:void 0})})}[Symbol.asyncIterator](){
return this}async[asyncDispose](){await this.return()}},Received=class{from;protocol;data;wantsReply;settled;#resolve;#reject;constructor(message){
this.from=message.from,this.protocol=message.protocol,this.data=message.data,this.wantsReply=message.wantsReply,this.settled=new Promise((resolve,reject)=>{
this.#resolve=resolve,this.#reject=reject})}reply(data){this.#resolve(data)}refuse(text="refused"){this.#reject(new Refusal(text))}done(){this.
wantsReply?this.refuse("no reply"):this.#resolve(void 0)}};function watchPage(session,left){let page=globalThis;if(typeof page.addEventListener!="function")return()=>{};let look=()=>session.probe(),shown=()=>page.
document?.visibilityState==="visible"&&look(),hidden=event=>{event.persisted||left()};return page.addEventListener("online",look),page.addEventListener(
"pageshow",look),page.addEventListener("pagehide",hidden),page.document?.addEventListener("visibilitychange",shown),()=>{page.removeEventListener(
"online",look),page.removeEventListener("pageshow",look),page.removeEventListener("pagehide",hidden),page.document?.removeEventListener("vis\
ibilitychange",shown)}}var Upkeep=class{#apply;#failed;#wish;#has;#running=!1;#waiters=[];constructor(apply,failed){this.#apply=apply,this.#failed=failed}get wish(){
return this.#wish}want(wish){return this.#wish=wish,new Promise((resolve,reject)=>{this.#waiters.push({resolve,reject}),this.#run()})}renew(){
this.#has=void 0,this.#run()}async#run(){if(!this.#running){for(this.#running=!0;this.#wish!==this.#has;){let wish=this.#wish;try{await this.#apply(
wish,this.#has),this.#has=wish}catch(error){error instanceof ParleyError&&error.code==="session-lost"?this.#has=void 0:this.#wish===wish&&this.#has!==
wish&&this.#fail(error)}}this.#running=!1;for(let{resolve}of this.#waiters.splice(0))resolve()}}#fail(error){this.#wish=this.#has;let waiters=this.#waiters.
splice(0);for(let{reject}of waiters)reject(error);waiters.length||this.#failed(error)}};var keepMessages=1024,keepBytes=4<<20,Topic=class{name;members=new Map;owner;#rooms=new Set;#upkeep;#seen;constructor(name,owner){this.name=
name,this.owner=owner,this.#upkeep=new Upkeep((wish,had)=>this.#apply(wish,had),error=>this.#failed(error))}get state(){return this.#upkeep.
wish?.state??null}enter(room,state){this.#rooms.add(room);let wish=this.#upkeep.wish;return this.#upkeep.want(wish&&state===void 0?wish:presence(
state))}async leave(room){this.#rooms.delete(room),!this.#rooms.size&&(await this.#upkeep.want(void 0),this.#rooms.size||this.owner.ended(this))}setState(state){
return this.#upkeep.want(presence(state))}renew(){this.#seen=[],this.#upkeep.renew()}close(error){for(let room of this.#rooms)room.end(error)}publication(from,data,size){
let publication={topic:this.name,from,data};for(let room of this.#rooms)room.take(publication,size)}presence(peer,joined,state){if(peer===this.
owner.peer)return;let member={peer,state:state??null};this.#seen?.push({member,joined}),joined?this.#here(member):this.#gone(peer)}lost(count){
for(let room of this.#rooms)room.tell("lost",{topic:this.name,count})}async#apply(wish,had){if(!wish)return this.members.clear(),void await this.
owner.call("unsubscribe",{topic:this.name});had||(this.#seen=[]);try{let params={topic:this.name,...wish.state===null?{}:{state:wish.state}},
{members}=await this.owner.call("subscribe",params);this.#seen&&this.#sync(members,this.#seen)}finally{this.#seen=void 0}}#sync(list,since){
let now=new Map(list.filter(m=>m.peer!==this.owner.peer).map(m=>[m.peer,{peer:m.peer,state:m.state??null}]));for(let{member,joined}of since)
joined?now.set(member.peer,member):now.delete(member.peer);for(let peer of[...this.members.keys()])now.has(peer)||this.#gone(peer);for(let member of now.
values())this.#here(member)}#here(member){let before=this.members.get(member.peer);if(!(before&&same(before.state,member.state))){this.members.
set(member.peer,member);for(let room of this.#rooms)room.tell(before?"change":"join",member)}}#gone(peer){let member=this.members.get(peer);
if(member){this.members.delete(peer);for(let room of this.#rooms)room.tell("leave",member)}}#failed(error){if(this.owner.report(error),!this.#upkeep.
wish)for(let room of this.#rooms)room.end(error)}};function presence(state=null){return{state:decode(encode(state))}}function same(a,b){let x=encode(
a),y=encode(b);return x.length===y.length&&x.every((byte,i)=>byte===y[i])}var TopicRoom=class extends Emitter{ready;#topic;#loops=new Set;#early;#abandon;#heedless;#leaving;#ended=!1;#error;constructor(topic,state,signal){
super(),this.#topic=topic,this.#early=new Loop(()=>{}),this.ready=new Promise((resolve,reject)=>{this.#abandon=reject,signal?.aborted?reject(
givenUp(signal)):topic.enter(this,state).then(resolve,reject)}),this.ready.catch(error=>{this.end(error),topic.leave(this).catch(()=>{})});let abort=()=>{
this.#leave(givenUp(signal))};this.#heedless=onAbort(signal,abort)}get topic(){return this.#topic.name}get members(){return this.#topic.members}get state(){
return this.#topic.state}set state(state){this.#topic.setState(state).catch(error=>this.#topic.owner.report(error))}publish(data,options){return this.#topic.
owner.publish(this.topic,data,options)}close({signal}={}){return orGivenUp(this.#leave(new ParleyError("closed","the room was closed")),signal)}#leave(reason){
return this.#ended?this.#leaving??Promise.resolve():(this.end(),this.#abandon(reason),this.#leaving=this.#topic.leave(this).catch(()=>{}))}async[asyncDispose](){
await this.close()}[Symbol.asyncIterator](){let loop=new Loop(count=>this.#dropped(count));return loop.onReturn=()=>this.#returned(loop),this.#handOver(
(p,size)=>loop.push(p,size)),this.#ended&&loop.end(this.#error),this.#loops.add(loop),loop}#returned(loop){this.#loops.delete(loop),!this.#loops.
size&&!this.listenedTo&&this.close()}take(publication,size){this.#early?.push(publication,size);for(let loop of this.#loops)loop.push(publication,
size);this.emit("message",publication)}tell(type,detail){this.emit(type,detail)}end(error){if(!this.#ended){this.#ended=!0,this.#error=error,
this.#heedless?.(),this.#early?.end(error);for(let loop of this.#loops)loop.end(error)}}listening(type){type==="message"&&this.#handOver(p=>this.
emit("message",p))}failed(error){this.#topic.owner.report(error)}#handOver(to){let early=this.#early;if(this.#early=void 0,early)for(let{publication,
size}of early.rest())to(publication,size)}#dropped(count){this.emit("lost",{topic:this.topic,count}),this.#topic.owner.lost(this.topic,count)}},
Loop=class{#queue=new Fifo;#asked=new Fifo;#dropped;#bytes=0;#ended=!1;#error;onReturn=()=>{};constructor(dropped){this.#dropped=dropped}push(publication,size){
if(this.#ended)return;let asked=this.#asked.shift();if(asked)return asked.resolve({done:!1,value:publication});this.#queue.push({publication,
size}),this.#bytes+=size;let dropped=0;for(;this.#queue.length>keepMessages||this.#bytes>keepBytes&&this.#queue.length>1;)this.#bytes-=this.#queue.
shift().size,dropped++;dropped&&this.#dropped(dropped)}next(){let item=this.#queue.shift();if(item)return this.#bytes-=item.size,Promise.resolve(
{done:!1,value:item.publication});if(this.#error!==void 0){let error=this.#error;return this.#error=void 0,Promise.reject(error)}return this.#ended?
Promise.resolve({done:!0,value:void 0}):new Promise((resolve,reject)=>this.#asked.push({resolve,reject}))}async return(){for(this.end();this.#queue.
shift(););return this.onReturn(),{done:!0,value:void 0}}rest(){return this.#queue}end(error){if(!this.#ended){this.#ended=!0,this.#error=error;
for(let asked=this.#asked.shift();asked;asked=this.#asked.shift())this.#error!==void 0?(asked.reject(this.#error),this.#error=void 0):asked.
resolve({done:!0,value:void 0})}}};var Log=class{#frames=[];#head=0;#first=1;#next=1;#sent=0;#bytes=0;get bytes(){return this.#bytes}get sent(){return this.#sent}get waiting(){
return this.#next<this.#end}get#end(){return this.#first+this.#frames.length-this.#head}push(frame){return this.#frames.push(frame),this.#bytes+=
frame.length,this.#end-1}take(batch,limit){let size=batch.reduce((n,p)=>n+p.length,0);for(;this.waiting;){let frame=this.#frames[this.#head+
this.#next-this.#first];if(batch.length&&size+frame.length>limit)break;batch.push(frame),size+=frame.length,this.#next++}this.#sent=Math.max(
this.#sent,this.#next-1)}received(n){let upTo=Math.min(n,this.#sent);for(;this.#first<=upTo;)this.#bytes-=this.#frames[this.#head].length,this.#frames[this.#head++]=
void 0,this.#first++;this.#head>1024&&this.#head*2>this.#frames.length&&(this.#frames.splice(0,this.#head),this.#head=0),this.#next=Math.max(
this.#next,this.#first)}rewind(n){this.received(n),this.#next=this.#first}};var idleTime=25e3,answerTime=1e4,batchBytes=262144,backlogBytes=16<<20,OPEN=1,Session=class{#owner;#options;#ended=new AbortController;#token;#log=new Log;#received=0;#frameLimit=65536;#waiters=[];#socket;#online=!1;#control=[];#flushing=!1;#told=0;#untold=0;#heard=0;#ackTimer;#idleTimer;#bye;#drop;#attempt=0;#wake;#hurry=!1;constructor(owner,options){
this.#owner=owner,this.#options=options}get online(){return this.#online}room(){if(!(this.#log.bytes<backlogBytes||this.#ended.signal.aborted))
return new Promise(resolve=>this.#waiters.push(resolve))}async run(){for(;!this.#ended.signal.aborted;){let{error,fatal}=await this.#connection();
if(this.#online=!1,this.#ended.signal.aborted)return;if(fatal)return this.#end(error);let delay=this.#hurry?0:this.#delay(error);this.#hurry=
!1,this.#owner.onOffline(error,delay),this.#ended.signal.aborted||await this.#pause(delay)}}write(frame){let n=this.#log.push(frame);return this.#online&&
this.#flushSoon(),n}probe(){this.#wake?(this.#attempt=0,this.#wake()):this.#online?Date.now()-this.#heard>5e3&&this.#ask():this.#hurry=!0}close(error){
if(this.#ended.signal.aborted)return;let socket=this.#socket;this.#online&&socket?.readyState===OPEN&&(this.#flush(),socket.send(encode([5,"\
closed",""]))),this.#end(error),socket?.close(1e3)}#end(error){this.#online=!1,this.#ended.abort(),clearTimeout(this.#ackTimer),clearTimeout(
this.#idleTimer),this.#drop?.(error),this.#wake?.(),this.#release(),this.#owner.onClosed(error)}async#connection(){let socket;try{socket=await this.#options.
dial(this.#ended.signal)}catch(cause){let error=cause instanceof ParleyError?cause:new ParleyError("unreachable",String(cause),{cause});return{
error,fatal:error.code==="malformed"||error.code==="unsupported"}}let gone=await this.#serve(socket);return socket.onopen=socket.onmessage=socket.
onclose=null,socket.onerror=()=>{},clearTimeout(this.#ackTimer),clearTimeout(this.#idleTimer),this.#socket=this.#drop=void 0,gone}#serve(socket){
return new Promise(resolve=>{this.#socket=socket,this.#bye=void 0,this.#control=[],this.#heard=Date.now(),this.#drop=(error,fatal=!1)=>{resolve(
{error,fatal}),fatal?socket.close(4002,error.code):socket.close()},socket.onerror=()=>{},socket.onclose=event=>{let fatal=event.code===1e3||
event.code===1002||event.code===1008,code=event.code===1008?"forbidden":event.code===1013?"limit":"closed",text=event.reason||(fatal?"the no\
de ended the session":"the connection to the node was lost");resolve({error:this.#bye??new ParleyError(code,text),fatal})},socket.onmessage=
event=>this.#message(event.data),socket.send(this.#hello()),this.#deadline("the node did not answer in time")})}#hello(){let resume=this.#token&&
{session:this.#token,received:this.#received};return encode([0,{v:2,...this.#options.hello(),...resume}])}#message(data){this.#heard=Date.now();
try{if(!(data instanceof ArrayBuffer))throw new ParleyError("malformed","the node sent text");for(let frame of decodeFrames(new Uint8Array(data)))
frame.kind>=16?this.#numbered(frame):this.#controlFrame(frame)}catch(cause){if(!(cause instanceof ParleyError))throw cause;this.#drop?.(cause,
!0)}}#numbered(frame){if(!this.#online)throw new ParleyError("malformed","the node began without a welcome");this.#received++,this.#untold+=
frame.size,this.#received-this.#told>=32||this.#untold>=65536?this.#flushSoon():this.#ackTimer??=setTimeout(()=>this.#flush(),50),this.#owner.
onFrame(frame)}#controlFrame({kind,parts}){switch(kind){case 1:return this.#welcome(parts[0]);case 2:return this.#log.received(Number(parts[0])),
this.#release();case 3:return this.#control.push(encode([4,parts[0]])),this.#flushSoon();case 5:{let[code,text,retryAfter]=parts;this.#bye=new ParleyError(
code,text,{retryAfter})}}}#welcome(w){let{v,session,resumed=!1,received=0,peer,node="",grace=3e4,limits}=w??{};if(v!==2||!(session instanceof
Uint8Array)||typeof peer!="string"||!limits||this.#online)throw new ParleyError("unsupported","the node speaks another version of the protoc\
ol");let sent=this.#log.sent;this.#token=session,this.#frameLimit=limits.frame,resumed?this.#log.rewind(received):(this.#log=new Log,this.#received=
0),this.#release(),this.#told=this.#received,this.#untold=0,this.#attempt=0,this.#online=!0,this.#hurry=!1,this.#watch(),this.#flushSoon(),this.#owner.
onOnline({peer,node,grace,limits},resumed,sent)}#flushSoon(){this.#flushing||(this.#flushing=!0,queueMicrotask(()=>{this.#flushing=!1,this.#flush()}))}#flush(){
clearTimeout(this.#ackTimer),this.#ackTimer=void 0;let socket=this.#socket;if(!this.#online||socket?.readyState!==OPEN)return;this.#told!==this.#received&&
(this.#told=this.#received,this.#untold=0,this.#control.push(encode([2,this.#received])));let limit=Math.min(batchBytes,this.#frameLimit);for(;this.#control.
length||this.#log.waiting;){let batch=this.#control;this.#control=[],this.#log.take(batch,limit),socket.send(join(batch))}}#release(){if(!(this.#log.
bytes>=backlogBytes&&!this.#ended.signal.aborted))for(let resolve of this.#waiters.splice(0))resolve()}#watch(){clearTimeout(this.#idleTimer);
let idle=Date.now()-this.#heard;if(idle>=idleTime)return this.#ask();this.#idleTimer=setTimeout(()=>this.#watch(),idleTime-idle)}#ask(){this.#control.
push(encode([3,this.#received])),this.#flush(),this.#deadline("the node does not answer any more")}#deadline(text){let asked=this.#heard;clearTimeout(
this.#idleTimer),this.#idleTimer=setTimeout(()=>{this.#heard===asked||!this.#online?this.#drop?.(new ParleyError("unreachable",text)):this.#watch()},
answerTime)}#delay(error){let{min,max}=this.#options.retry,step=Math.min(max,min*2**this.#attempt++);return Math.max(error.retryAfter??0,Math.
round(step*(.5+Math.random()/2)))}#pause(delay){return new Promise(resolve=>{let done=()=>{clearTimeout(timer),this.#wake=void 0,resolve()},
timer=setTimeout(done,delay);this.#wake=done})}};function join(parts){if(parts.length===1)return parts[0];let out=new Uint8Array(parts.reduce(
(n,p)=>n+p.length,0)),at=0;for(let part of parts)out.set(part,at),at+=part.length;return out}var pageWindow=262144,minCost=32,PageChannel=class{id;protocol;closed;#owner;#info;#credit=0;#waiting=new Fifo;#waitingBytes=0;#deaf;#inbox=new Fifo;#read=0;#asked=!1;#finished;#closing=!1;#failed=!1;#over=!1;#settleClosed;#settleOver;#isOver;#stream;#reading;#writable;#writing;constructor(owner,id,protocol,info){
this.#owner=owner,this.id=id,this.protocol=protocol,this.#info=info,this.closed=new Promise(resolve=>this.#settleClosed=resolve),this.#isOver=
new Promise(resolve=>this.#settleOver=resolve),this.#stream=new ReadableStream({start:controller=>{this.#reading=controller},pull:()=>this.#pull(),
cancel:reason=>this.close(reason===void 0?void 0:{text:String(reason?.message??reason)})},{highWaterMark:0})}get info(){return this.#info}async refresh(options){
return this.#info=await this.#owner.channelInfo(this.id,options)}async send(data,{signal}={}){let content=bytesOf(data);if(this.#deaf)throw this.#deaf;
if(signal?.aborted)throw givenUp(signal);let{maxContent,maxQueue}=this.#owner;if(content.length>maxContent)throw new ParleyError("too-large",
`message too large: ${content.length} bytes, limit ${maxContent}`);let cost=Math.max(minCost,content.length),frame=encode([21,this.id,content]);
if(!this.#waiting.length&&cost<=this.#credit)return this.#write(frame,cost);if(this.#waitingBytes+cost>maxQueue)throw new ParleyError("queue\
-full",`${maxQueue} bytes are waiting in this channel already`);await this.#wait(frame,cost,signal)}#wait(frame,cost,signal){return new Promise(
(resolve,reject)=>{let abort=()=>{this.#waiting.remove(sending),this.#waitingBytes-=cost,sending.failed(givenUp(signal)),this.#pump()},done=()=>signal?.
removeEventListener("abort",abort),sending={frame,cost,sent:()=>(done(),resolve()),failed:error=>(done(),reject(error))};signal?.addEventListener(
"abort",abort),this.#waiting.push(sending),this.#waitingBytes+=cost})}#write(frame,cost){this.#credit-=cost,this.#owner.write(frame)}#pump(){
for(let next=this.#waiting.first;next&&next.cost<=this.#credit;next=this.#waiting.first)this.#waiting.shift(),this.#waitingBytes-=next.cost,
this.#write(next.frame,next.cost),next.sent()}#deafen(error){this.#deaf??=error;for(let s=this.#waiting.shift();s;s=this.#waiting.shift())s.
failed(error);this.#waitingBytes=0}get writable(){return this.#writable??=new WritableStream({start:controller=>{this.#writing=controller,this.#deaf&&
controller.error(this.#deaf),controller.signal?.addEventListener("abort",()=>this.#abort(controller.signal.reason))},write:chunk=>this.#writeAll(
bytesOf(chunk)),close:()=>this.close(),abort:reason=>this.#abort(reason)})}async#writeAll(bytes){let size=this.#owner.maxContent;for(let at=0;at<
bytes.length;at+=size)await this.send(bytes.subarray(at,at+size))}#abort(reason){this.close({text:reason instanceof Error?reason.message:reason===
void 0?"aborted":String(reason)})}get readable(){return this.#stream}get messages(){return{[Symbol.asyncIterator]:()=>iterate(this.#stream)}}#pull(){
let content=this.#inbox.shift();if(content)return this.#give(content);this.#asked=!0,this.#finish()}#give(content){this.#asked=!1,this.#reading.
enqueue(content),this.#read+=Math.max(minCost,content.length),this.#read>=pageWindow/2&&!this.#over&&!this.#finished&&(this.#owner.write(encode(
[22,this.id,this.#read])),this.#read=0),this.#finish()}#finish(){if(!this.#finished||this.#inbox.length)return;let{error}=this.#finished;try{
error?this.#reading.error(error):this.#reading.close()}catch{}}opened(window,info){this.#info=info,this.credit(window)}content(bytes){this.#finished||
(this.#asked?this.#give(bytes):this.#inbox.push(bytes))}credit(n){this.#credit+=n,this.#pump()}end(code,text,more){let error=code===""?void 0:
new ParleyError(code,text||code),deaf=error??new ParleyError("closed","the channel is closed");this.#deaf||this.#writing?.error(deaf),this.#deafen(
deaf),this.#settleClosed(code===""?null:{code,text}),!more&&(this.#over=!0,this.#finished??={error},this.#finish(),this.#settleOver())}async close(reason,{
signal}={}){reason?this.#fail(reason.code??"unknown",reason.text??""):this.#closeInOrder(),await orGivenUp(this.#isOver,signal)}#fail(code,text){
this.#over||this.#failed||(this.#failed=!0,this.#stopReading(),this.#deafen(new ParleyError("closed","this end closed the channel")),this.#settleClosed(
{code,text}),this.#owner.write(encode([23,this.id,code,text.slice(0,1024)])))}#closeInOrder(){if(this.#closing||this.#over||this.#failed)return;
this.#closing=!0,this.#stopReading();let last=encode([23,this.id,"",""]);this.#waiting.length?this.#waiting.push({frame:last,cost:0,sent:()=>{},
failed:()=>{}}):this.#owner.write(last),this.#deaf??=new ParleyError("closed","this end closed the channel")}#stopReading(){for(;this.#inbox.
shift(););this.#finished??={error:void 0},this.#finish()}async[asyncDispose](){await this.close()}};function iterate(stream){let reader=stream.
getReader(),left=!1,leave=()=>{left||reader.releaseLock(),left=!0};return{async next(){if(left)return{done:!0,value:void 0};try{let{done,value}=await reader.
read();return done?(leave(),{done,value:void 0}):{done,value}}catch(error){throw leave(),error}},async return(){return leave(),{done:!0,value:void 0}}}}
function bytesOf(data){if(data instanceof ArrayBuffer)return new Uint8Array(data);if(ArrayBuffer.isView(data))return new Uint8Array(data.buffer,
data.byteOffset,data.byteLength);throw new ParleyError("malformed","a channel carries bytes: a Uint8Array, another view, or an ArrayBuffer")}function infoOf({remote,verified,path,relay,rtt}){return{remote,verified,path,rtt,...relay?{relay}:{}}}var Spaces=class{owner;#rooms=new Map;#channels=new Map;#opening=new Set;#nextId=1;#session=0;constructor(owner){
this.owner=owner}space(name){return{name,join:options=>this.#join(name,options)}}get session(){return this.#session}async#join(name,{signal}={}){
if(signal?.aborted)throw givenUp(signal);for(let old=this.#rooms.get(name);old;old=this.#rooms.get(name)){if(!old.leaving)throw new ParleyError(
"already-started",`this page has joined the space already: ${name}`);await orGivenUp(old.leaving,signal)}let room=new JoinedRoom(this,name);
this.#rooms.set(name,room);try{await orGivenUp(room.joined(),signal)}catch(error){let left=room.leave();throw signal?.aborted||await left,error}
return room}left(room){this.#rooms.get(room.space)===room&&this.#rooms.delete(room.space)}async open(space,peer,protocol,{signal,via,directOnly}){
let id=this.#nextId;this.#nextId+=2;let ch=this.#channel(id,protocol,{remote:peer,verified:!1,path:"none",rtt:0});this.#opening.add(id);try{
let params={space,peer,protocol,channel:id,window:pageWindow,...via&&{via},...directOnly&&{directOnly}},{window,info}=await this.owner.call(
"open",params,signal);ch.opened(window,infoOf(info))}catch(error){throw this.#channels.delete(id),signal?.aborted&&this.owner.write(encode([
23,id,"unknown","the call was given up"])),error}finally{this.#opening.delete(id)}return ch}#channel(id,protocol,info){let{owner}=this,ch=new PageChannel(
{get maxContent(){return owner.maxContent},maxQueue:owner.maxQueue,write:frame=>owner.write(frame),channelInfo:async(channel,options)=>infoOf(
await owner.call("info",{channel},options?.signal))},id,protocol,info);return this.#channels.set(id,ch),ch}content(id,bytes){this.#channels.
get(id)?.content(bytes)}credit(id,n){this.#channels.get(id)?.credit(n)}end(id,code,text,flags=0){let more=(flags&1)!==0;this.#channels.get(id)?.
end(code,text,more),more||this.#channels.delete(id)}incoming(id,space,protocol,window,info){let loop=this.#rooms.get(space)?.accepting(protocol);
if(!loop)return void this.owner.write(encode([23,id,"bad-space-hash","nobody listens to this protocol any more"]));let ch=this.#channel(id,protocol,
infoOf(info));ch.credit(window),loop.push(ch)}renew(){this.#session++,this.#endAll("lost","the session with the node was lost");for(let room of this.#rooms.
values())room.renew()}close(error,own){this.#endAll(error.code,error.message);for(let room of this.#rooms.values())room.end(own);this.#rooms.
clear()}#endAll(code,text){for(let[id,ch]of this.#channels)this.#opening.has(id)||(this.#channels.delete(id),ch.end(code,text,!1))}},JoinedRoom=class{space;#spaces;#membership;#loops=new Map;leaving;#left=!1;constructor(spaces,name){
this.space=name,this.#spaces=spaces;let apply=async wish=>{await spaces.owner.call(wish?"join":"leave",{space:name})};this.#membership=new Upkeep(
apply,error=>{spaces.owner.report(error),this.end(error),spaces.left(this)})}joined(){return this.#membership.want(!0)}open(agent,protocol,options={}){
return this.#asMember(options.signal,()=>this.#spaces.open(this.space,agent,protocol,options))}async#asMember(signal,call){for(;;){if(this.#check(),
signal?.aborted)throw givenUp(signal);await orGivenUp(this.joined(),signal);let{session}=this.#spaces;try{return await call()}catch(error){if(!(error instanceof
ParleyError&&error.code==="not-joined"&&session!==this.#spaces.session))throw error}}}accept(protocol,{signal}={}){if(this.#check(),this.#loops.
has(protocol))throw new ParleyError("already-started",`this page listens to the protocol already: ${protocol}`);let{owner}=this.#spaces,apply=async wish=>{
let params={space:this.space,protocol};wish?this.#left||await this.#asMember(void 0,()=>owner.call("listen",{...params,window:pageWindow})):
await owner.call("unlisten",params)},loop=new Loop2(apply,error=>owner.report(error),()=>this.#loops.delete(protocol));return this.#loops.set(
protocol,loop),loop.begin(signal),loop}accepting(protocol){return this.#loops.get(protocol)}leave({signal}={}){return orGivenUp(this.leaving??=
this.#leave(),signal)}async#leave(){this.#left||(this.end(),await this.#membership.want(void 0).catch(()=>{}),this.#spaces.left(this))}async[asyncDispose](){
await this.leave()}renew(){this.#membership.renew();for(let loop of this.#loops.values())loop.renew()}end(error){this.#left=!0;for(let loop of[
...this.#loops.values()])loop.end(error)}#check(){if(this.#left)throw new ParleyError("not-joined",`this page has left the space: ${this.space}`)}},
Loop2=class{ready;#listening;#forget;#queue=new Fifo;#asked=new Fifo;#begun;#heedless=()=>{};#ended=!1;#error;constructor(apply,report2,forget){
this.#forget=forget,this.ready=new Promise((resolve,reject)=>this.#begun={resolve,reject}),this.ready.catch(()=>{}),this.#listening=new Upkeep(
apply,error=>{report2(error),this.end(error)})}begin(signal){let stop=()=>{this.return()};this.#heedless=onAbort(signal,stop),this.#listening.
want(!0).then(this.#begun.resolve,error=>this.end(error)),signal?.aborted&&stop()}renew(){this.#listening.renew()}push(ch){let asked=this.#asked.
shift();asked?asked.resolve({done:!1,value:ch}):this.#queue.push(ch)}next(){let ch=this.#queue.shift();if(ch)return Promise.resolve({done:!1,
value:ch});if(this.#error){let{error}=this.#error;return this.#error=void 0,Promise.reject(error)}return this.#ended?Promise.resolve({done:!0,
value:void 0}):new Promise((resolve,reject)=>this.#asked.push({resolve,reject}))}async return(){return this.#ended||(this.end(),await this.#listening.
want(void 0).catch(()=>{})),{done:!0,value:void 0}}end(error){if(!this.#ended){this.#ended=!0,this.#heedless(),this.#forget(),this.#begun.reject(
error??new ParleyError("closed","the loop was left"));for(let ch=this.#queue.shift();ch;ch=this.#queue.shift())ch.close({code:"bad-space-has\
h",text:"nobody listens to this protocol any more"});error!==void 0&&!this.#asked.length&&(this.#error={error});for(let asked=this.#asked.shift();asked;asked=
this.#asked.shift())error===void 0?asked.resolve({done:!0,value:void 0}):asked.reject(error),error=void 0}}[Symbol.asyncIterator](){return this}async[asyncDispose](){
await this.return()}};var PageNode=class extends Emitter{#options;#session;#calls;#inbox;#protocols=new Map;#topics=new Map;#spaces;#unwatch;#welcome;#state="offl\
ine";#key;#first;constructor(options){super(),this.#options=options,this.#key=options.key,options.onState&&this.on("state",options.onState);
let url=nodeUrl(options.url);this.#session=new Session(this,{dial:signal=>dial(url,options,signal),hello:()=>this.#key===void 0?{identity:options.
identity}:{key:this.#key},retry:{min:options.retry?.min??100,max:options.retry?.max??5e3}}),this.#calls=new Calls(this.#session,options.maxQueue??
64<<20),this.#inbox=new Inbox(this.#session,error=>this.report(error)),this.#spaces=new Spaces(this.#spacesOwner(options.maxQueue??64<<20)),
this.#unwatch=watchPage(this.#session,()=>this.#close("the page was left"))}async begin(){let{signal}=this.#options,cancelled=()=>this.#session.
close(givenUp(signal)),heedless;return await new Promise((resolve,reject)=>{if(this.#first={resolve,reject},signal?.aborted)return cancelled();
heedless=onAbort(signal,cancelled),this.#session.run()}).finally(()=>heedless?.()),this}get peer(){return this.#welcome?.peer??""}get state(){
return this.#state}get version(){return this.#welcome?.node??""}get limits(){return this.#welcome.limits}async start(protocol,handler,{signal}={}){
await this.#start(protocol,handler,signal,()=>{})}async#start(protocol,handler,signal,ended){if(signal?.aborted)throw givenUp(signal);if(this.#inbox.
has(protocol))throw new ParleyError("already-started",`already started protocol: ${protocol}`);let heedless=onAbort(signal,()=>{this.stop(protocol).
catch(()=>{})});this.#inbox.listen(protocol,handler,error=>(heedless(),ended(error)));let upkeep=this.#protocol(protocol),started=upkeep.want(
!0).catch(error=>{throw this.#inbox.unlisten(protocol,error),upkeep.wish||this.#protocols.delete(protocol),error});await orGivenUp(started,signal)}async stop(protocol,{
signal}={}){if(!this.#inbox.has(protocol))throw new ParleyError("not-started",`protocol not started: ${protocol}`);this.#inbox.unlisten(protocol);
let upkeep=this.#protocol(protocol),stopped=upkeep.want(void 0).then(()=>{upkeep.wish||this.#protocols.delete(protocol)});await orGivenUp(stopped,
signal)}listen(protocol,{signal}={}){let loop=new Listening(async()=>{this.#inbox.has(protocol,loop.handle)&&await this.stop(protocol).catch(
()=>{})});return this.#start(protocol,loop.handle,signal,error=>loop.end(error)).catch(error=>{loop.end(signal?.aborted?void 0:error)}),loop}async send(peer,protocol,data,options={}){
let level=levels.indexOf(options.level??"handled");if(level<0)throw new ParleyError("malformed",`there is no level ${String(options.level)}`);
let reached=await this.#send(peer,protocol,data,level,0,options);return levels[reached]??"queued"}async request(peer,protocol,data,options={}){
return await this.#send(peer,protocol,data,2,1,options)}#send(peer,protocol,data,level,flags,{signal}){let frame=id=>encode([20,id,peer,protocol,
data,level,flags]),around=peer.length+protocol.length+24;return this.#calls.call({lane:`${peer}
${protocol}`,frame,around,signal})}subscribe(topic,{state,signal}={}){let shared=this.#topics.get(topic);return shared||this.#topics.set(topic,
shared=new Topic(topic,this)),new TopicRoom(shared,state,signal)}async publish(topic,data,options={}){let frame=id=>encode([16,id,"publish",
{topic,data}]);await this.#calls.call({lane:`
${topic}`,frame,around:topic.length+40,signal:options.signal})}async members(topic,options={}){return(await this.#ask("members",{topic},options)).
members}space(name){return this.#spaces.space(name)}#spacesOwner(maxQueue){let node=this;return{get maxContent(){return node.#welcome?.limits.
content??65536},maxQueue,write:frame=>this.#session.write(frame),call:(method,params,signal)=>this.#calls.call({lane:"",frame:id=>encode([16,
id,method,params]),signal}),report:error=>this.report(error)}}async path(peer,options={}){return await this.#ask("path",{peer},options)}async addPeers(peers,options={}){
let addresses=options.addresses&&[...options.addresses];await this.#ask("addPeers",{peers:[...peers],addresses},options)}async removePeers(peers,options={}){
await this.#ask("removePeers",{peers:[...peers]},options)}async exportKey(options={}){return(await this.#ask("exportKey",{},options)).key}async status(options={}){
return await this.#ask("status",{},options)}async close(){this.#close("the node was closed")}async[asyncDispose](){await this.close()}onFrame({
kind,parts,size}){switch(kind){case 17:return this.#calls.answered(parts[0],void 0,parts[1]);case 18:return this.#calls.answered(parts[0],wireError(
parts[1],parts[2],parts[3]));case 24:return this.#inbox.message(parts);case 28:return this.#topics.get(parts[0])?.publication(parts[1],parts[2],
size);case 29:return this.#topics.get(parts[0])?.presence(parts[1],!!parts[2],parts[3]);case 30:{let[topic,count]=parts;return this.#topics.
get(topic)?.lost(count),this.lost(topic,count)}case 21:return this.#spaces.content(parts[0],parts[1]);case 22:return this.#spaces.credit(parts[0],
parts[1]);case 23:{let[channel,code,text,flags]=parts;return this.#spaces.end(channel,code&&wireError(code,text).code,text,flags)}case 32:return this.#spaces.
incoming(...parts);case 31:parts[0]==="path"&&this.emit("path",parts[1])}}onOnline(welcome,resumed,sent){let first=!this.#welcome;if(this.#welcome=
welcome,!resumed&&!first&&(this.#inbox.lost(),this.#calls.lost(sent)),!resumed){for(let upkeep of this.#protocols.values())upkeep.renew();for(let topic of this.#topics.
values())topic.renew();first||this.#spaces.renew()}this.#calls.online(welcome.limits),first&&this.#options.identity===""&&this.#key===void 0&&
this.#keepKey(),this.#change({state:"online",resumed:resumed||first}),this.#first?.resolve(),this.#first=void 0}onOffline(error,retryIn){if(this.#first&&
!this.#options.wait)return this.#session.close(error);this.#change({state:"offline",error,retryIn})}onClosed(error){this.#unwatch(),this.#first?.
reject(error),this.#first=void 0;let own=error.code==="closed"||error.code==="cancelled"?void 0:error;this.#inbox.close(own);for(let topic of this.#topics.
values())topic.close(own);this.#spaces.close(error,own),this.#calls.close(error),this.#change({state:"closed",error})}call(method,params){return this.#calls.
call({lane:"",frame:id=>encode([16,id,method,params])})}lost(topic,count){this.emit("lost",{topic,count})}ended(topic){this.#topics.delete(topic.
name)}report(error){this.#state!=="closed"&&(this.heard("error")?this.emit("error",error):report(error))}failed(error,type){type==="error"?report(
error):this.report(error)}#ask(method,params,{signal}){return this.#calls.call({lane:"",frame:id=>encode([16,id,method,params]),repeat:!0,signal})}#protocol(protocol){
let upkeep=this.#protocols.get(protocol);if(upkeep)return upkeep;let apply=async wish=>{await this.call(wish?"start":"stop",{protocol})};return upkeep=
new Upkeep(apply,error=>{this.#inbox.unlisten(protocol,error),this.#protocols.delete(protocol),this.report(error)}),this.#protocols.set(protocol,
upkeep),upkeep}async#keepKey(){try{this.#key=await this.exportKey()}catch{}}#change(change){this.#state=change.state,this.emit("state",change)}#close(text){
this.#session.close(new ParleyError("closed",text))}};async function connect(options={}){let{ask,signal}=options,url=nodeUrl(options.url);if(!ask||!isElsewhere(url))return new PageNode(options).
begin();let known=grantFor(url,ask)!==void 0;known||await askPerson(url,ask,signal);try{return await new PageNode(options).begin()}catch(error){
if(!known||!(error instanceof ParleyError)||!["unreachable","forbidden","unauthorized"].includes(error.code))throw error;return forgetGrant(
url),await askPerson(url,ask,signal),new PageNode(options).begin()}}export{ParleyError,codes,connect};
