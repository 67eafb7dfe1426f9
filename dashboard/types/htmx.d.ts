/** What of htmx our modules use. */
declare const htmx: {
  ajax(
    verb: string,
    path: string,
    context: { target?: string; source?: string; swap?: string },
  ): Promise<void>;
};
