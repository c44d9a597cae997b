// The token of a one-time link stands behind the #, which browsers send to no server. This takes it into the form and out of the
// address bar and the history.
const field = document.getElementById("token");
if (field && location.hash.length > 1) {
  field.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  field.form.requestSubmit();
}
