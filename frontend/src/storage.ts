// Browser storage under a name of our own: every GraphiQL ever opened on localhost:8000 used the same keys.
const prefix = 'bargraph:';

const ownKeys = () => Object.keys(localStorage).filter((key) => key.startsWith(prefix));

export const ownStorage = {
  getItem: (key: string) => localStorage.getItem(prefix + key),
  setItem: (key: string, value: string) => localStorage.setItem(prefix + key, value),
  removeItem: (key: string) => localStorage.removeItem(prefix + key),
  clear: () => ownKeys().forEach((key) => localStorage.removeItem(key)),
  get length() {
    return ownKeys().length;
  },
};
