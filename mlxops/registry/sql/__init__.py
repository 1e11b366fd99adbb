"""What `inv sql` needs: reading SQL texts, running them, explaining their errors, saved queries."""
