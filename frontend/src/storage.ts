// Browser storage under a name of our own: every GraphiQL ever opened on localhost:8000 used the same keys.
const prefix = 'bargraph:';

// GraphiQL's history keeps headers whatever `shouldPersistHeaders` says, and headers hold tokens.
const histories = new Set(['graphiql:queries', 'graphiql:favorites']);
const withoutHeaders = (json: string) =>
  JSON.stringify(JSON.parse(json), (name, value: unknown) => (name === 'headers' ? undefined : value));

const ownKeys = () => Object.keys(localStorage).filter((key) => key.startsWith(prefix));

export const ownStorage = {
  getItem: (key: string) => localStorage.getItem(prefix + key),
  setItem: (key: string, value: string) =>
    localStorage.setItem(prefix + key, histories.has(key) ? withoutHeaders(value) : value),
  removeItem: (key: string) => localStorage.removeItem(prefix + key),
  clear: () => ownKeys().forEach((key) => localStorage.removeItem(key)),
  get length() {
    return ownKeys().length;
  },
};
