"""The stories, each on one page; the only room that joins the others."""
