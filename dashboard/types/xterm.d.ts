/** The modules of xterm.js as the server serves them. */
declare module "*/npm/xterm/xterm.mjs" {
  export { Terminal } from "@xterm/xterm";
}
declare module "*/npm/xterm-fit/addon-fit.mjs" {
  export { FitAddon } from "@xterm/addon-fit";
}
