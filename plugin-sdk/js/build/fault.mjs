/** What a person can put right: a message, and perhaps what to do about it. No stack is shown. */
export class Fault extends Error {
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}
