// The search works in a worker, which browsers do not start from the disk. There, a hidden frame
// runs the worker's script instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open();
      inside.document.write("<!doctype html><title>search</title>");
      inside.document.close();
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      script.src = url;
      this.ready = new Promise((resolve) => script.addEventListener("load", resolve));
      inside.document.head.append(script);
    }

    postMessage(data) {
      const inside = this.frame.contentWindow;
      const deliver = () => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
      // One at a time, as to a worker: what a message has begun is done before the next one comes.
      this.ready.then(() => setTimeout(deliver));
    }
  };
}
